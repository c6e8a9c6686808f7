//! The whole system through its public API: in this process, as the real binary, and apart on PostgreSQL.

// A refusal that does not come is a failure of the test.
#![allow(clippy::unwrap_used)]

mod audit_trail;
mod cli;
mod compensation;
mod doctor;
mod drain;
mod faults;
mod governance;
mod health;
mod http;
mod identity;
mod input;
mod logs_set_back;
mod main_job;
mod quickstart;
mod repeat;
mod restore;
mod restored_again;
mod secrets;
mod site;
mod split;
mod standing;
mod tamper;
mod tenancy;
mod tls;
mod traces;
