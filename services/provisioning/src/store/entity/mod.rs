//! The tables, one file each.

pub mod column;
pub mod deployment;
pub mod environment;
pub mod event;
pub mod log_chunk;
pub mod operation;
pub mod plan;
pub mod project;
pub mod resource;
pub mod run;
pub mod secret;
pub mod step;
pub mod timer;
