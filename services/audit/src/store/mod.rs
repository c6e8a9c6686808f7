//! The tables of the log. The only place that knows SeaORM.

mod accepted_loss;
mod append;
mod batch;
mod check;
mod checkpoint;
mod conflict;
mod entity;
mod head;
mod held_log;
mod insert;
mod loss;
mod migration;
mod parked_event;
mod producer;
mod record;
mod release;
mod tile;
mod undone;

use std::sync::Arc;

use pavior_store::{Store, StoreError, Tx, TxFuture};

use crate::error::Error;

pub(crate) use batch::AppendedBatch;
pub(crate) use held_log::{HeldLog, NOT_HELD, ReleaseCondition};
pub(crate) use loss::Absent;
pub(crate) use parked_event::Limits;
pub(crate) use producer::parse_stored;
pub(crate) use record::{Page, Selection};
pub(crate) use release::Released;

impl From<sea_orm::DbErr> for Error {
    fn from(error: sea_orm::DbErr) -> Self {
        Self::Store(StoreError::from(error))
    }
}

/// The service's database.
#[derive(Debug, Clone)]
pub(crate) struct AuditStore {
    store: Store,
}

/// Applies the migrations that are missing.
pub(crate) async fn migrate(store: &Store) -> Result<(), StoreError> {
    pavior_store::migrate::<migration::Migrator>(store).await
}

impl AuditStore {
    /// Over a database that has the tables.
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Brings the tables up to date.
    pub(crate) async fn open(store: Store) -> Result<Self, StoreError> {
        migrate(&store).await?;
        Ok(Self::new(store))
    }

    /// The one way in which logs, and what is parked for them, change.
    async fn write<A, T>(
        &self,
        arguments: A,
        work: for<'c> fn(&'c Tx, &'c A) -> TxFuture<'c, T, Error>,
    ) -> Result<T, Error>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
    {
        let arguments = Arc::new(arguments);
        let written = self.store.upkeep("the log itself: records, tiles, heads", move |tx| {
            let arguments = arguments.clone();
            Box::pin(async move { work(tx, &arguments).await })
        });
        written.await
    }

    /// Wakes at every commit of this process.
    pub(crate) fn commits(&self) -> tokio::sync::watch::Receiver<u64> {
        self.store.commits()
    }

    /// Whether another process may write to the database too.
    pub(crate) fn is_shared(&self) -> bool {
        self.store.backend() == sea_orm::DbBackend::Postgres
    }

    /// Closes the database in order.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }

    /// Whether the database takes writes.
    pub(crate) async fn check(&self) -> Result<(), String> {
        self.store.check().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{AuditStore, Limits, StoreError};
    use crate::domain::batch::{Batch, Entry, Producer, Submission};
    use crate::domain::checkpoint::CheckpointSigner;
    use crate::domain::hash;

    impl AuditStore {
        /// Appends one record, made of its number.
        pub(crate) async fn grow_by_one<S: CheckpointSigner + Clone + 'static>(
            &self,
            log: &str,
            seq: i64,
            signer: &S,
        ) {
            let body = seq.to_string().into_bytes();
            let entry = Entry::sample(log, seq, hash::leaf(&body), body);
            let producer = Producer { service: "catalog".into(), epoch: "e".into() };
            let batch = Arc::new(Batch { submissions: vec![Submission { producer, entries: vec![entry] }] });
            let (signer, limits): (Arc<dyn CheckpointSigner>, _) =
                (Arc::new(signer.clone()), Limits { records: 0, bytes: 0 });
            let appended =
                self.append_batch_unscoped(&batch, &Arc::default(), &signer, limits).await.unwrap();
            assert_eq!(appended.records, 1);
        }

        /// Changes what is stored as nobody may.
        pub(crate) async fn damage(&self, sql: &'static str) {
            let damaged = self.store.upkeep("damage", move |tx| {
                Box::pin(async move {
                    sea_orm::ConnectionTrait::execute_unprepared(tx, sql).await?;
                    Ok::<_, StoreError>(())
                })
            });
            damaged.await.unwrap();
        }
    }
}
