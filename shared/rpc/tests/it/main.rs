//! The stack and the client layers around a real generated service, in-process and over TCP.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected should stop")]

mod client;
mod drain;
mod harness;
mod health;
mod mask;
mod reflection;
mod ship;
mod stack;
mod tls;
mod validate;
mod values;
mod wire;
