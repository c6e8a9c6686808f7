//! Migrations, oldest first.

mod m20260101_000001_create_policy;

use sea_orm_migration::prelude::*;

/// Every migration of the policy service.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut all = pavior_store::outbox::migrations();
        all.extend(pavior_store::idempotency::migrations());
        all.push(Box::new(m20260101_000001_create_policy::Migration));
        all.push(pavior_store::installation::migration());
        all
    }
}
