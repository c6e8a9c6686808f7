//! Provisioning as a whole, over real databases.

mod crash;
mod engine;
mod harness;
mod simulation;
