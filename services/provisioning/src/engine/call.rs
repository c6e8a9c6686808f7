//! One call of a driver under a lease: renewed while it runs, stopped gracefully when the operation is cancelled or the
//! time is up, dropped when the claim is lost or the driver does not listen.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::sink::EngineSink;
use crate::store::StepRef;

/// How often log lines are kept.
const FLUSH: Duration = Duration::from_millis(150);

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Called<T> {
    /// The driver answered.
    Answer(T),
    /// Nobody knows, and why.
    Unknown(&'static str),
    /// Another worker has the step.
    ClaimLost,
}

impl Engine {
    /// Runs `call` to its end.
    pub(crate) async fn call<T>(
        &self,
        reference: StepRef,
        sink: &EngineSink,
        cancel: &CancellationToken,
        call: impl Future<Output = T> + Send,
    ) -> Called<T> {
        let config = &self.inner.config;
        let grace = Duration::from_millis(config.cancel_grace_ms);
        let lease = Duration::from_millis(config.lease_ms);
        let mut beat = tokio::time::interval_at(Instant::now() + lease / 3, lease / 3);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut flush = tokio::time::interval_at(Instant::now() + FLUSH, FLUSH);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held_until = Instant::now() + lease;
        let mut drop_at: Option<Instant> = None;
        let timeout = tokio::time::sleep(Duration::from_millis(config.step_timeout_ms));
        tokio::pin!(timeout);
        let call = AssertUnwindSafe(call).catch_unwind();
        tokio::pin!(call);
        let called = loop {
            tokio::select! {
                biased;
                answer = &mut call => break match answer {
                    Ok(answer) => Called::Answer(answer),
                    Err(_) => Called::Unknown("the driver panicked"),
                },
                () = cancel.cancelled(), if drop_at.is_none() => drop_at = Some(Instant::now() + grace),
                () = tokio::time::sleep_until(drop_at.unwrap_or(held_until)), if drop_at.is_some() => {
                    break Called::Unknown("the driver did not stop in time");
                }
                () = &mut timeout, if drop_at.is_none() => {
                    cancel.cancel();
                    drop_at = Some(Instant::now() + grace);
                }
                _ = flush.tick() => sink.flush(false).await,
                _ = beat.tick() => {
                    match self.inner.db.heartbeat_unscoped(reference, super::micros(config.lease_ms)).await {
                        Ok((true, stop)) => {
                            held_until = Instant::now() + lease;
                            if stop {
                                cancel.cancel();
                            }
                        }
                        Ok((false, _)) => break Called::ClaimLost,
                        Err(error) => tracing::warn!(%error, "a claim could not be renewed"),
                    }
                    // Before somebody else may have it, nothing of ours may still be at it.
                    if Instant::now() + lease / 6 >= held_until {
                        break Called::ClaimLost;
                    }
                }
            }
        };
        sink.flush(true).await;
        called
    }
}
