//! Both ends of the contract against each other, over a local transport and over TCP, and a driver in Python.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected should stop")]

mod calls;
mod conformance;
mod handshake;
mod harness;
mod python;
mod rogue;
mod secrets;
