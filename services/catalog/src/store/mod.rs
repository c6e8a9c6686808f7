//! The catalog's database: rows and queries, and nothing that decides.
//!
//! Every query on tenant data takes a [`Permit`] and is confined to its organization.

mod definitions;
mod entities;
mod entity;
mod groups;
mod imports;
mod kinds;
mod migration;
mod organizations;
mod relations;
mod resource_types;
mod table;
mod templates;
#[cfg(test)]
mod tests;
mod users;

use std::sync::Arc;

use futures::future::BoxFuture;
use pavior_auth::Permit;
use pavior_core::clock::Clock;
use pavior_store::outbox::{Limits, OutboxContext};
use pavior_store::{Recorded, Retryable, Store, StoreError, idempotency};
pub(crate) use sea_orm::ConnectionTrait;
use sea_orm::DatabaseConnection;

pub(crate) use imports::{Existing, Upsert};
pub(crate) use organizations::DirectoryRows;

pub(crate) use table::{ListError, ListQuery, Listing, Table};

/// The catalog's database. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct CatalogStore {
    store: Store,
    outbox: OutboxContext,
}

/// Queries over a connection.
#[derive(Debug)]
pub(crate) struct Db<'a, C> {
    connection: &'a C,
}

/// Queries outside of a transaction.
pub(crate) type Reader<'a> = Db<'a, DatabaseConnection>;
/// Queries in a transaction.
pub(crate) type Tx<'a> = Db<'a, pavior_store::Tx>;

/// Most values in one `IN` list or rows in one insert; both databases bound the number of bound values.
pub(crate) const CHUNK: usize = 500;

/// Applies the migrations that are missing.
pub(crate) async fn migrate(store: &Store) -> Result<(), StoreError> {
    pavior_store::migrate::<migration::Migrator>(store).await
}

impl CatalogStore {
    /// Brings the schema up to date.
    pub(crate) async fn open(
        store: Store,
        instance: &str,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Self, StoreError> {
        migrate(&store).await?;
        let mut outbox = OutboxContext::new(&store, crate::ROLE, instance, clock);
        outbox.limits = limits;
        Ok(Self { store, outbox })
    }

    /// Who appends to the outbox, and within which limits.
    pub(crate) fn outbox(&self) -> &OutboxContext {
        &self.outbox
    }

    pub(crate) fn read(&self) -> Reader<'_> {
        Db { connection: self.store.read() }
    }

    /// Runs `work` in a transaction, again when it lost a race, and commits it with its audit events.
    pub(crate) async fn change<T, E, W>(&self, work: W) -> Result<T, E>
    where
        W: for<'c> Fn(Tx<'c>) -> BoxFuture<'c, Result<Recorded<T>, E>> + Send + Sync + 'static,
        T: Send + 'static,
        E: From<StoreError> + Retryable + Send + 'static,
    {
        self.store.change(&self.outbox, move |connection| work(Db { connection })).await
    }
}

impl<C: ConnectionTrait> Db<'_, C> {
    /// The first answer to the same request, if there was one.
    pub(crate) async fn first_answer(
        &self,
        key: &idempotency::Key,
        hash: &[u8],
    ) -> Result<Option<Vec<u8>>, idempotency::IdempotencyError> {
        idempotency::check(self.connection, key, hash).await
    }

    /// What was known of the target when the first answer was made.
    pub(crate) async fn first_facts(
        &self,
        key: &idempotency::Key,
        now: time::OffsetDateTime,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        idempotency::facts(self.connection, key, now).await
    }
}

/// A permit and the organization of a row must agree; that they do not is a bug of the caller.
fn confined(permit: &Permit, organization: &str) -> Result<(), StoreError> {
    if permit.organization() == organization {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!(
        "row of organization `{organization}` under a permit for `{}`",
        permit.organization()
    )))
}

fn time(micros: i64) -> Result<time::OffsetDateTime, StoreError> {
    pavior_store::from_micros(micros)
        .ok_or_else(|| StoreError::Corrupt(format!("time {micros} is out of range")))
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}

/// Text by text, as JSON keeps it.
fn text_map(json: &serde_json::Value) -> Option<std::collections::BTreeMap<String, String>> {
    json.as_object()?.iter().map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn text_list(json: &serde_json::Value) -> Option<Vec<String>> {
    json.as_array()?.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

impl<C: ConnectionTrait> Db<'_, C> {
    fn backend(&self) -> sea_orm::DbBackend {
        self.connection.get_database_backend()
    }
}
