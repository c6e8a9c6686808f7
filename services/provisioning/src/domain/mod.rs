//! Pure types and rules of provisioning: no async, no I/O, no wire, no database.

pub mod entry;
pub mod failure;
pub mod finality;
pub mod graph;
pub mod machine;
pub mod names;
pub mod plan;
pub mod plan_json;
pub mod planner;
pub mod question;
pub mod scope;
pub mod standing;
pub mod state;
pub mod taint;
pub mod teardown;
pub mod template;
