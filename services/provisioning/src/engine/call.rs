//! One call of a driver under a lease: renewed while it runs, stopped gracefully when the operation is cancelled or the
//! time is up, dropped when the claim is lost or the driver does not listen.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::sink::EngineSink;
use super::stop::Stop;
use crate::store::StepRef;

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
    ///
    /// The claim is renewed and log lines are kept by a future of its own, polled beside the call: the call may itself
    /// be waiting for the database, and whoever waits for the database without being polled holds up all others.
    pub(crate) async fn call<T>(
        &self,
        reference: StepRef,
        sink: &EngineSink,
        stop: &Stop,
        limit: Duration,
        call: impl Future<Output = T> + Send,
    ) -> Called<T> {
        let over = CancellationToken::new();
        let keep = self.keep(reference, sink, stop, &over);
        tokio::pin!(keep);
        let mut lost = false;
        let called = {
            // In a block, so that a call that is given up is gone before the sink is flushed: it may be holding it.
            let watched = self.watch(stop, limit, call);
            tokio::pin!(watched);
            tokio::select! {
                biased;
                called = &mut watched => called,
                () = &mut keep => {
                    lost = true;
                    Called::ClaimLost
                }
            }
        };
        over.cancel();
        if !lost {
            // What it is in the middle of must end, or lines that it took out of the buffer are lost.
            keep.await;
        }
        sink.flush(true).await;
        called
    }

    /// The call with its time limit, and with the grace it gets once it is told to stop.
    async fn watch<T>(
        &self,
        stop: &Stop,
        limit: Duration,
        call: impl Future<Output = T> + Send,
    ) -> Called<T> {
        let grace = Duration::from_millis(self.inner.config.cancel_grace_ms);
        let timeout = tokio::time::sleep(limit);
        tokio::pin!(timeout);
        let call = AssertUnwindSafe(call).catch_unwind();
        tokio::pin!(call);
        let mut drop_at: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                answer = &mut call => return match answer {
                    Ok(answer) => Called::Answer(answer),
                    Err(_) => Called::Unknown("the driver panicked"),
                },
                () = stop.token().cancelled(), if drop_at.is_none() => drop_at = Some(Instant::now() + grace),
                () = tokio::time::sleep_until(drop_at.unwrap_or_else(Instant::now)), if drop_at.is_some() => {
                    return Called::Unknown("the driver did not stop in time");
                }
                () = &mut timeout, if drop_at.is_none() => {
                    stop.time_is_up();
                    drop_at = Some(Instant::now() + grace);
                }
            }
        }
    }

    /// Renews the claim and keeps log lines until it is stopped. Returns before that when the claim is lost.
    async fn keep(&self, reference: StepRef, sink: &EngineSink, stop: &Stop, over: &CancellationToken) {
        let lease = Duration::from_millis(self.inner.config.lease_ms);
        let mut beat = tokio::time::interval_at(Instant::now() + lease / 3, lease / 3);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let every = Duration::from_millis(self.inner.config.log_flush_ms.max(1));
        let mut flush = tokio::time::interval_at(Instant::now() + every, every);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held_until = Instant::now() + lease;
        loop {
            tokio::select! {
                biased;
                () = over.cancelled() => return,
                _ = beat.tick() => {
                    let asked = Instant::now();
                    match self.inner.db.heartbeat_unscoped(reference, super::micros(self.inner.config.lease_ms)).await {
                        Ok((true, not_wanted)) => {
                            held_until = asked + lease;
                            if not_wanted {
                                stop.not_wanted();
                            }
                        }
                        Ok((false, _)) => return,
                        Err(error) => tracing::warn!(%error, "a claim could not be renewed"),
                    }
                    // Before somebody else may have it, nothing of ours may still be at it.
                    if Instant::now() + lease / 6 >= held_until {
                        return;
                    }
                }
                _ = flush.tick() => sink.flush(false).await,
            }
        }
    }
}
