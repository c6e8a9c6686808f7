//! Provisioning: makes what is asked for from a golden path, and keeps it so.

pub mod domain;
pub mod engine;
pub mod error;
#[doc(hidden)]
pub mod store;
