//! The real service behind its server stack, called through the generated client with signed internal tokens, on
//! SQLite and PostgreSQL. The catalog is a small server of its own.

// A failure to set up a test is a failure of the test.
#![allow(clippy::unwrap_used)]

mod approvals;
mod attributes;
mod catalog;
mod decisions;
mod fixture;
mod limits;
mod policy_texts;
mod repeat;
mod resources;
mod tasks;
