//! Provisioning as a whole, over real databases.

#![allow(clippy::unwrap_used, clippy::panic)]

mod approvals;
mod artifacts;
mod cancel;
mod conformance;
mod crash;
mod describe;
mod diagnosis;
mod engine;
mod expiry;
mod fixture;
mod fleets;
mod governance;
mod harness;
mod indexes;
mod leases;
mod limits;
mod mistakes;
mod orphans;
mod outage;
mod peers;
mod plans;
mod races;
mod records;
mod repeats;
mod replacement;
mod restore;
mod secrets;
mod service;
mod simulation;
mod standing;
mod stuck;
mod teardown;
mod upkeep;
mod workloads;
