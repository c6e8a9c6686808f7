//! The gateway in front of small real servers, over TCP.

#![allow(clippy::unwrap_used, clippy::panic)]

mod access;
mod composite;
mod edge;
mod fake;
mod governance;
mod harness;
mod imports;
mod table;
