//! Operations with their steps, and the log of the engine: one file for each thing that happens to an operation.

pub(crate) mod accept;
pub(crate) mod aggregate;
pub(crate) mod approve;
mod cancel;
pub(crate) mod claim;
pub(crate) mod complete;
pub(crate) mod completion;
mod delete;
mod effects;
mod finish;
pub(crate) mod health;
mod hold;
mod lease;
pub(crate) mod log;
pub(crate) mod read;
mod recover;
pub(crate) mod restore;
pub(crate) mod retry;
mod rows;
mod write;
