//! # pavior-testkit
//!
//! Owns what tests share: databases ([`db`]), clocks and ids that tests control, the surroundings of a service
//! ([`ServiceHarness`]) with the peers that it calls ([`fake`]), [`wait_for`], [`assert_problem`], calls of any method
//! ([`dynamic`]), what every repeatable change must keep to ([`repeat`]), and every resource ([`conformance`]).
//!
//! It must never be a dependency of anything but tests, and never mock what can be run for real.
//!
//! Entry points: [`db`], [`ServiceHarness`], [`assert_problem`], [`wait_for`].

// A failure to set up a test is a failure of the test.
#![allow(clippy::panic, clippy::unwrap_used)]

pub mod conformance;
pub mod db;
pub mod dynamic;
pub mod fake;
mod governed;
mod harness;
mod problem;
pub mod repeat;

pub use governed::governed;
pub use harness::{PAGE_TOKEN_KEY, ServiceHarness, meter, service, user};
pub use pavior_core::clock::{Clock, ManualClock, SystemClock};
pub use pavior_core::id_gen::{IdGen, SeededIds, SystemIds};
pub use problem::{assert_problem, assert_refusal, fields};

use std::time::Duration;

/// Waits until `condition` holds, looking again every few milliseconds. After `max` it panics with `what` and the
/// last state that `condition` told in its `Err`.
pub async fn wait_for<F, Fut, T, S>(what: &str, max: Duration, condition: F) -> T
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, S>>,
    S: std::fmt::Debug,
{
    let until = tokio::time::Instant::now() + max;
    let mut pause = Duration::from_millis(2);
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(state) if tokio::time::Instant::now() > until => {
                panic!("waited {max:?} for {what}; state: {state:?}")
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
