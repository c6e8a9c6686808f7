//! The history of the tables.

mod m20261123_000001_log;
mod m20261126_000002_parked;
mod m20261126_000003_demanded;
mod m20261126_000004_accepted;

use sea_orm_migration::prelude::*;

/// All migrations, oldest first.
pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_log::Migration),
            pavior_store::installation::migration(),
            Box::new(m20261126_000002_parked::Migration),
            Box::new(m20261126_000003_demanded::Migration),
            Box::new(m20261126_000004_accepted::Migration),
        ]
    }
}
