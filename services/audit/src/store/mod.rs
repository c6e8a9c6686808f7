//! The tables of the log. The only place that knows SeaORM.

mod accepted;
mod append;
mod check;
mod clash;
mod entity;
mod growth;
mod migration;
mod parking;
mod producers;
mod records;
mod release;
mod tiles;

use pavior_store::{Store, StoreError};

use crate::error::Error;

pub(crate) use append::{Appended, Sign};
pub(crate) use check::{Objection, Unchecked};
pub(crate) use parking::{Demand, HeldLog, Limits, NOT_HELD};
pub(crate) use records::{Page, Selection};
pub(crate) use release::{Absent, Losses, Released};

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

    use super::{AuditStore, Limits, Sign, StoreError};
    use crate::domain::batch::{Batch, Entry, IndexFields, Producer, Submission};
    use crate::domain::hash;

    impl AuditStore {
        /// Appends one record, made of its number.
        pub(crate) async fn grow_by_one<S: Sign + Clone + 'static>(&self, log: &str, seq: i64, signer: &S) {
            let body = seq.to_string().into_bytes();
            let (log, leaf) = (log.to_owned(), hash::leaf(&body));
            let entry = Entry { log, seq, leaf, body, index_fields: IndexFields::default() };
            let producer = Producer { service: "catalog".into(), epoch: "e".into() };
            let batch = Arc::new(Batch { submissions: vec![Submission { producer, entries: vec![entry] }] });
            let (signer, limits): (Arc<dyn Sign>, _) =
                (Arc::new(signer.clone()), Limits { records: 0, bytes: 0 });
            let content = |_: &str, _: &[u8]| Ok([0; 32]);
            let appended =
                self.append_unscoped(&batch, &Arc::default(), &signer, content, limits).await.unwrap();
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
