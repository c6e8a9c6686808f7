//! One call of a driver: stopped gracefully when the operation is cancelled or the time is up, dropped when the claim is
//! lost or the driver does not listen.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::sink::EngineSink;
use super::stop::Stop;

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
    /// Log lines are kept by a future of its own, polled beside the call: the call may itself be waiting for the
    /// database, and whoever waits for the database without being polled holds up all others.
    pub(crate) async fn call<T>(
        &self,
        sink: &EngineSink,
        stop: &Stop,
        limit: Duration,
        call: impl Future<Output = T> + Send,
    ) -> Called<T> {
        let over = CancellationToken::new();
        let watched = async {
            let called = tokio::select! {
                biased;
                called = self.watch(stop, limit, call) => called,
                () = stop.lost() => Called::ClaimLost,
            };
            over.cancel();
            called
        };
        // What is being kept must end, or lines that were taken out of the buffer are lost.
        let (called, ()) = tokio::join!(watched, self.keep_lines(sink, &over));
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
        let grace = Duration::from_millis(self.config.cancel_grace_ms);
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

    /// Keeps log lines now and then until it is stopped.
    async fn keep_lines(&self, sink: &EngineSink, over: &CancellationToken) {
        let every = Duration::from_millis(self.config.log_flush_ms.max(1));
        let mut flush = tokio::time::interval_at(Instant::now() + every, every);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = over.cancelled() => return,
                _ = flush.tick() => sink.flush(false).await,
            }
        }
    }
}
