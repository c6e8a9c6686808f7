//! The catalog's database: rows and queries, and nothing that decides.
//!
//! Every query on tenant data takes a permit and is confined to its organization.

mod definitions;
mod entities;
mod entity;
mod groups;
mod imports;
mod kinds;
mod memberships;
mod migration;
mod organizations;
mod relations;
mod resource_types;
mod templates;
#[cfg(test)]
mod tests;
mod users;

pub(crate) use imports::{Existing, Upsert};
pub(crate) use memberships::Side;
pub(crate) use organizations::DirectoryRows;
use pavior_resource::{CHUNK, Rows, stored_time as time};
use pavior_store::{Store, StoreError};
pub(crate) use sea_orm::ConnectionTrait;
use sea_orm::DatabaseConnection;

/// Queries over a connection.
#[derive(Debug)]
pub(crate) struct Db<'a, C> {
    rows: Rows<'a, C>,
}

/// Queries outside of a transaction.
pub(crate) type Reader<'a> = Db<'a, DatabaseConnection>;
/// Queries in a transaction.
pub(crate) type Tx<'a> = Db<'a, pavior_store::Tx>;

/// Applies the migrations that are missing.
pub(crate) async fn migrate(store: &Store) -> Result<(), StoreError> {
    pavior_store::migrate::<migration::Migrator>(store).await
}

impl<'a, C: ConnectionTrait> Db<'a, C> {
    /// Over this connection.
    pub(crate) fn new(connection: &'a C) -> Self {
        Self { rows: Rows::new(connection) }
    }
}

/// What is asked of every table is asked of the rows.
impl<'a, C> std::ops::Deref for Db<'a, C> {
    type Target = Rows<'a, C>;

    fn deref(&self) -> &Rows<'a, C> {
        &self.rows
    }
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}

/// Text by text, as JSON keeps it.
fn text_map(json: &serde_json::Value) -> Option<std::collections::BTreeMap<String, String>> {
    json.as_object()?.iter().map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// A JSON Schema as text keeps it.
fn schema(text: &str, what: &str) -> Result<crate::domain::Schema, StoreError> {
    crate::domain::Schema::parse(text).map_err(|_| corrupt(what))
}

fn text_list(json: &serde_json::Value) -> Option<Vec<String>> {
    json.as_array()?.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}
