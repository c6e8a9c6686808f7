//! The drivers against the real things: git over HTTP, processes, SQLite, PostgreSQL.

// A failure to set up a test is a failure of the test.
#![allow(clippy::panic, clippy::unwrap_used)]

mod conformance;
mod crash;
mod digits;
mod failures;
mod git;
mod pipeline;
mod postgres;
mod process;
mod pushes;
mod restart;
mod schemas;
mod world;
