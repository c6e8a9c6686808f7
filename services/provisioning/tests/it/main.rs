//! Provisioning as a whole, over real databases.

#![allow(clippy::unwrap_used, clippy::panic)]

mod crash;
mod engine;
mod fixture;
mod harness;
mod peers;
mod service;
mod simulation;
mod upkeep;
