//! The catalog's database: rows and queries, and nothing that decides.
//!
//! Every query on tenant data takes a permit and is confined to its organization.

mod directory;
mod entity;
mod group;
mod import;
mod kind;
mod membership;
mod migration;
mod organization;
mod relation;
mod resource_definition;
mod resource_type;
mod row;
mod template;
mod template_version;
#[cfg(test)]
mod tests;
mod user;

pub(crate) use directory::DirectoryRows;
pub(crate) use import::{Existing, Upsert};
pub(crate) use membership::Side;
use pavior_resource::{CHUNK, Purge, Rows, stored_time as time};
use pavior_store::{Store, StoreError};
pub(crate) use sea_orm::ConnectionTrait;
use sea_orm::DatabaseConnection;

use crate::domain::{
    EntityFields, GroupFields, KindFields, MembershipFields, ResourceDefinitionFields, ResourceTypeFields,
    TemplateFields, UserFields,
};

/// Queries over a connection.
#[derive(Debug)]
pub(crate) struct Db<'a, C> {
    rows: Rows<'a, C>,
}

/// Queries outside of a transaction.
pub(crate) type Reader<'a> = Db<'a, DatabaseConnection>;

/// Applies the migrations that are missing.
pub(crate) async fn migrate(store: &Store) -> Result<(), StoreError> {
    pavior_store::migrate::<migration::Migrator>(store).await
}

/// Gives up what is deleted and no longer kept.
pub(crate) fn purges() -> Vec<Purge> {
    vec![
        Purge::of::<GroupFields>(),
        Purge::of::<UserFields>(),
        Purge::of::<MembershipFields>(),
        Purge::of::<KindFields>(),
        Purge::of::<EntityFields>(),
        Purge::of::<TemplateFields>(),
        Purge::of::<ResourceTypeFields>(),
        Purge::of::<ResourceDefinitionFields>(),
    ]
}

impl<'a, C: ConnectionTrait> Db<'a, C> {
    /// Over this connection.
    pub(crate) fn new(connection: &'a C) -> Self {
        Self { rows: Rows::new(connection) }
    }
}

/// Queries that every table has come from the rows.
impl<'a, C> std::ops::Deref for Db<'a, C> {
    type Target = Rows<'a, C>;

    fn deref(&self) -> &Rows<'a, C> {
        &self.rows
    }
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}

/// A JSON Schema as text keeps it.
fn schema(text: &str, what: &str) -> Result<crate::domain::Schema, StoreError> {
    crate::domain::Schema::parse(text).map_err(|_| corrupt(what))
}
