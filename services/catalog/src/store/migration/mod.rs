//! The schema of the catalog's database.

mod m20261123_000001_catalog;
mod m20261127_000002_managed_entities;

use sea_orm_migration::{MigrationTrait, MigratorTrait, async_trait};

/// The tables of which what is deleted is kept.
const DELETED: &[&str] = &[
    "groups",
    "users",
    "memberships",
    "kinds",
    "entities",
    "templates",
    "resource_types",
    "resource_definitions",
];

/// Every migration, in order.
#[derive(Debug)]
pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut all = pavior_store::outbox::migrations();
        all.extend(pavior_store::idempotency::migrations());
        all.push(Box::new(m20261123_000001_catalog::Migration));
        all.push(pavior_store::installation::migration());
        all.push(Box::new(m20261127_000002_managed_entities::Migration));
        all.push(pavior_resource::deleted::migration("m20261202_000001_deleted", DELETED));
        all
    }
}
