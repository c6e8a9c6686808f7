//! The real service over its real stack, on both databases, and the verifier over what it wrote.

#![allow(clippy::unwrap_used, clippy::panic)]

mod append;
mod conformance;
mod cut;
mod damage;
mod deliverable;
mod parked;
mod read;
mod restore;
mod support;
mod tamper;
mod watch;
