//! The tables of the log. The only place that knows SeaORM.

mod append;
mod check;
mod entity;
mod migration;
mod records;
mod tiles;

use std::collections::HashMap;
use std::sync::Arc;

use pavior_store::{DatabaseConfig, Store, StoreError};

use crate::domain::hash::Hash;
use crate::domain::tree::Edge;

pub(crate) use append::Sign;
pub(crate) use check::Unchecked;
pub(crate) use records::{Page, Selection};

/// The database library's error, for `From` in the service's error.
pub(crate) mod db_error {
    pub(crate) use sea_orm::DbErr;
}

/// A record as it stands in its log.
#[derive(Debug, Clone)]
pub(crate) struct StoredRecord {
    pub(crate) index: i64,
    pub(crate) leaf: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) receive_time: i64,
}

/// A signature over the state of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) note: String,
    pub(crate) verifier_key: String,
    /// When the last record of it was taken; microseconds since 1970.
    pub(crate) sign_time: i64,
}

/// The newest signed state of a log.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    pub(crate) size: u64,
    pub(crate) root: Hash,
    pub(crate) signed: Signed,
}

/// The right edges of logs as of the last commit of this process. Another replica may have gone on, so an edge counts
/// only while it agrees with the head in the database.
pub(crate) type Edges = HashMap<String, Arc<Edge>>;

/// The service's database.
#[derive(Debug, Clone)]
pub(crate) struct AuditStore {
    store: Store,
}

impl AuditStore {
    /// Connects and brings the tables up to date.
    pub(crate) async fn open(config: &DatabaseConfig) -> Result<Self, StoreError> {
        let store = Store::connect(config, "audit").await?;
        pavior_store::migrate::<migration::Migrator>(&store).await?;
        Ok(Self { store })
    }

    /// Wakes at every commit of this process.
    pub(crate) fn commits(&self) -> tokio::sync::watch::Receiver<u64> {
        self.store.commits()
    }

    /// Whether another process may write to the database too.
    pub(crate) fn is_shared(&self) -> bool {
        self.store.backend() == sea_orm::DbBackend::Postgres
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
}
