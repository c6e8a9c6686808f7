//! Transactions on PostgreSQL: each on a connection of the pool, and in a task of its own, so that a caller that
//! gives up ends none halfway.

use crate::StoreError;
use crate::idempotency;
use crate::member::{Claim, Ended, GiveUp, Undone};
use crate::pulse::Pulse;
use crate::tx::{Committed, Tx, TxFuture};
use sea_orm::sqlx::{self, PgPool};
use sea_orm::{DbErr, RuntimeErr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tracing::Instrument as _;

/// The pool, for transactions.
#[derive(Debug, Clone)]
pub(crate) struct Transactions {
    pub(crate) pool: PgPool,
    /// As many as the pool has connections.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) acquire_timeout: Duration,
    pub(crate) limit: Duration,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) commits: watch::Sender<u64>,
}

impl Transactions {
    /// Runs `work` once and returns when its effects are durable, or undone.
    pub(crate) async fn run<T, E, F>(&self, work: F) -> Result<(F, Result<T, E>), StoreError>
    where
        F: for<'c> FnMut(&'c Tx) -> TxFuture<'c, Ended<T>, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        // Here a caller may still go. Not while the pool is at work: a connection that is being made or tested is lost
        // with the one who asked for it, and callers who give up soon would leave none for the others.
        let place =
            match tokio::time::timeout(self.acquire_timeout, self.places.clone().acquire_owned()).await {
                Ok(Ok(place)) => place,
                Ok(Err(_)) => return Err(StoreError::Closed),
                Err(_) => return Err(StoreError::Busy),
            };
        let claim = Claim::default();
        let _given_up = GiveUp(claim.clone());
        let this = self.clone();
        let task = async move {
            let _place = place;
            let connection = this.pool.acquire().await.map_err(acquire_error)?;
            match claim.begin() {
                true => Ok(this.transaction(Tx::postgres(connection), work).await),
                // Nobody hears of it.
                false => Err(StoreError::Closed),
            }
        };
        match tokio::spawn(task.in_current_span()).await {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(StoreError::OutcomeUnknown(DbErr::Custom("the runtime has ended".to_owned()))),
        }
    }

    async fn transaction<T, E, F>(self, tx: Tx, mut work: F) -> (F, Result<T, E>)
    where
        F: for<'c> FnMut(&'c Tx) -> TxFuture<'c, Ended<T>, E>,
        E: From<StoreError>,
    {
        let ended = tokio::time::timeout(self.limit, self.in_time(&tx, &mut work)).await;
        let Ok(result) = ended else {
            // Closing the connection undoes it; a ROLLBACK would wait for the statement that runs.
            let limit_ms = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
            return (work, Err(StoreError::TookTooLong { limit_ms }.into()));
        };
        // The end is not within the time limit, which would leave open what came of it.
        let result = match result {
            Ok(Ended::Keep(value)) => self.commit(&tx).await.map(|()| value).map_err(E::from),
            Ok(Ended::Undo(value, None)) => {
                tx.rollback_postgres().await;
                Ok(value)
            }
            Ok(Ended::Undo(value, Some(kept))) => match self.keep(&tx, &kept).await {
                Ok(()) => Ok(value),
                Err(error) => Err(error.into()),
            },
            Err(error) => {
                tx.rollback_postgres().await;
                Err(error)
            }
        };
        (work, result)
    }

    async fn in_time<T, E, F>(&self, tx: &Tx, work: &mut F) -> Result<Ended<T>, E>
    where
        F: for<'c> FnMut(&'c Tx) -> TxFuture<'c, Ended<T>, E>,
        E: From<StoreError>,
    {
        tx.control("BEGIN READ WRITE").await.map_err(StoreError::from)?;
        work(tx).await
    }

    /// Undoes everything, and then keeps the answer alone.
    async fn keep(&self, tx: &Tx, kept: &idempotency::Kept) -> Result<(), StoreError> {
        tx.control("ROLLBACK").await?;
        tx.control("BEGIN READ WRITE").await?;
        match idempotency::keep(tx, kept).await {
            Ok(()) => self.commit(tx).await,
            Err(error) => {
                tx.rollback_postgres().await;
                Err(error)
            }
        }
    }

    async fn commit(&self, tx: &Tx) -> Result<(), StoreError> {
        match tx.commit_postgres().await {
            Committed::Yes => {
                self.pulse.committed();
                self.commits.send_modify(|n| *n = n.wrapping_add(1));
                Ok(())
            }
            Committed::No(error) => Err(StoreError::Database(error)),
            Committed::Unknown(error) => {
                self.pulse.failed(Undone::Unknown(error.clone()));
                Err(StoreError::OutcomeUnknown(error))
            }
        }
    }
}

fn acquire_error(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::PoolTimedOut => StoreError::Busy,
        sqlx::Error::PoolClosed => StoreError::Closed,
        error => StoreError::Database(DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)))),
    }
}
