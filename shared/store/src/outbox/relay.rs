//! Delivers the outbox.

use super::{Limits, OutboxRow, delivered, pending};
use crate::{Store, StoreError};
use backon::BackoffBuilder as _;
use futures::future::BoxFuture;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Why a delivery failed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("outbox cannot be read or cleared")]
    Store(#[from] StoreError),
    #[error("delivery failed")]
    Ship(#[source] BoxError),
}

/// Delivers the events of one service, in order and at least once.
///
/// An event leaves the outbox only after it was delivered, and the next ones are sent only after it left. So several
/// replicas may run a relay each: the receiver then sees some events twice, but none before its predecessor.
#[derive(Debug, Clone)]
pub struct Relay {
    store: Store,
    service: String,
    limits: Limits,
}

impl Relay {
    /// A relay for the events of `service` in `store`.
    pub fn new(store: Store, service: impl Into<String>, limits: Limits) -> Self {
        Self { store, service: service.into(), limits }
    }

    /// Delivers until cancelled. Failures are logged and tried again, after a growing pause of up to 30 seconds.
    /// Each call of `ship` gets events of one epoch and one instance.
    pub async fn run<S>(&self, cancel: CancellationToken, ship: S)
    where
        S: Fn(Vec<OutboxRow>) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync,
    {
        let pauses = backon::ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(30))
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
                    let pause = failures.next().unwrap_or(Duration::from_secs(30));
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(service = self.service, %error, cause, ?pause, "outbox delivery will be repeated");
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
        S: Fn(Vec<OutboxRow>) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync,
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
        S: Fn(Vec<OutboxRow>) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync,
    {
        let rows = pending(&self.store, &self.service, self.limits.batch.max(1)).await?;
        let Some((epoch, seq)) = rows.last().map(|row| (row.epoch, row.seq)) else { return Ok(0) };
        let count = rows.len() as u64;
        ship(rows).await.map_err(RelayError::Ship)?;
        delivered(&self.store, &self.service, epoch, seq).await?;
        Ok(count)
    }
}
