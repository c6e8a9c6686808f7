//! Pure types and rules of provisioning: no async, no I/O, no wire, no database.

pub mod cost;
pub mod deployment;
pub mod drift;
pub mod entry;
pub mod environment;
pub mod facts;
pub mod failure;
pub mod finality;
pub mod form;
pub mod graph;
pub mod machine;
pub mod names;
pub mod operation;
pub mod plan;
pub mod planner;
pub mod project;
pub mod question;
pub mod questions;
pub mod resource;
pub mod run;
pub mod scope;
pub mod state;
pub mod taint;
pub mod teardown;
pub mod template;
pub mod timer;
