//! The whole system through its public API: in this process, as the real binary, and apart on PostgreSQL.

mod compensation;
mod faults;
mod input;
mod main_job;
mod split;
mod tamper;
mod tenancy;
mod tls;
mod traces;
