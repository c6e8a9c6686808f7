//! Delivers the outbox.

use super::{Limits, OutboxRow, delivered, pending};
use crate::{Store, StoreError};
use backon::BackoffBuilder as _;
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Why a delivery failed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The longest pause before a delivery is tried again: so long it takes at most until all goes on when the receiver is
/// back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What came of a delivery. Only what the receiver acknowledges leaves the outbox.
#[derive(Debug, Default)]
#[must_use]
pub struct Delivery {
    /// The highest number that the receiver keeps for good; nothing when it keeps none of what it was sent.
    pub acknowledged: Option<i64>,
    /// Why it does not keep all.
    pub error: Option<BoxError>,
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("outbox cannot be read or cleared")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ship(BoxError),
    #[error("event {last} was delivered and {acknowledged:?} acknowledged")]
    NotAcknowledged { acknowledged: Option<i64>, last: i64 },
}

/// What a relay says of itself, shared by clones.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Option<String>>>);

impl Progress {
    /// Why the last delivery failed; nothing when it did not.
    pub fn failure(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, failure: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }
}

/// Delivers the events of one service, in order and at least once.
///
/// An event leaves the outbox only after it was acknowledged, and the next ones are sent only after it left. So several
/// replicas may run a relay each: the receiver then sees some events twice, but none before its predecessor.
#[derive(Debug, Clone)]
pub struct Relay {
    store: Store,
    service: String,
    limits: Limits,
    progress: Progress,
}

impl Relay {
    /// A relay for the events of `service` in `store`.
    pub fn new(store: Store, service: impl Into<String>, limits: Limits) -> Self {
        Self { store, service: service.into(), limits, progress: Progress::default() }
    }

    /// How it goes, for health.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Delivers until cancelled. Failures are logged and tried again, after a growing pause of up to five seconds.
    /// Each call of `ship` gets events of one epoch and one instance.
    pub async fn run<S>(&self, cancel: CancellationToken, ship: S)
    where
        S: Fn(Vec<OutboxRow>) -> BoxFuture<'static, Delivery> + Send + Sync,
    {
        let pauses = backon::ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .with_jitter();
        let mut failures = pauses.build();
        let mut commits = self.store.commits();
        while !cancel.is_cancelled() {
            commits.mark_unchanged();
            let step = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                step = self.step(&ship) => step,
            };
            self.progress.set(step.as_ref().err().map(explain));
            let pause = match step {
                Ok(0) => {
                    failures = pauses.build();
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => return,
                        _ = commits.changed() => continue,
                        () = tokio::time::sleep(self.limits.poll) => continue,
                    }
                }
                Ok(_) => {
                    failures = pauses.build();
                    continue;
                }
                Err(error) => {
                    let pause = failures.next().unwrap_or(LONGEST_PAUSE);
                    let error = explain(&error);
                    tracing::warn!(service = self.service, error, ?pause, "outbox delivery will be repeated");
                    pause
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Delivers until the outbox is empty, or the first failure; for shutdown and tests. Returns how many.
    pub async fn drain<S>(&self, ship: S) -> Result<u64, BoxError>
    where
        S: Fn(Vec<OutboxRow>) -> BoxFuture<'static, Delivery> + Send + Sync,
    {
        let mut total = 0;
        loop {
            match self.step(&ship).await? {
                0 => return Ok(total),
                n => total += n,
            }
        }
    }

    async fn step<S>(&self, ship: &S) -> Result<u64, RelayError>
    where
        S: Fn(Vec<OutboxRow>) -> BoxFuture<'static, Delivery> + Send + Sync,
    {
        let Limits { batch, batch_bytes, .. } = self.limits;
        let rows = pending(&self.store, &self.service, batch.max(1), batch_bytes).await?;
        let Some((epoch, last)) = rows.last().map(|row| (row.epoch, row.seq)) else { return Ok(0) };
        let count = rows.len() as u64;
        let Delivery { acknowledged, error } = ship(rows).await;
        let acknowledged = acknowledged.map(|seq| seq.min(last));
        if let Some(seq) = acknowledged {
            delivered(&self.store, &self.service, epoch, seq).await?;
        }
        match error {
            Some(error) => Err(RelayError::Ship(error)),
            None if acknowledged < Some(last) => Err(RelayError::NotAcknowledged { acknowledged, last }),
            None => Ok(count),
        }
    }
}

/// The error with what caused it.
fn explain(error: &RelayError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
