//! pavior-runtime: what turns components into a running process.
//!
//! Owns configuration, telemetry, the supervisor with its phased shutdown, and the admin endpoint. Must never know a
//! rule of a service, and keeps no process-global state but what `tracing` itself has.
//!
//! Entry points: [`Component`] (what a service's `build()` returns), [`Supervisor`], [`config::load`],
//! [`telemetry::init`], [`admin::serve`], [`process::keep_files_private`].

pub mod admin;
pub mod component;
pub mod config;
pub mod process;
pub mod readiness;
pub mod supervisor;
pub mod telemetry;

pub use component::{Cause, Component, HealthCheck, Severity, Task, Unmet};
pub use readiness::{Condition, Readiness, Report};
pub use supervisor::{Phase, Supervisor, SupervisorError, SupervisorOptions, os_signals};
