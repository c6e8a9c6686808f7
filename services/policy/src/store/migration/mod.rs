//! Migrations, oldest first.

mod m20261123_000001_policy;

use sea_orm_migration::prelude::*;

/// The tables of which what is deleted is kept.
const DELETED: &[&str] = &["roles", "role_bindings", "policies", "policy_bindings"];

/// Every migration of the policy service.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut all = pavior_store::outbox::migrations();
        all.extend(pavior_store::idempotency::migrations());
        all.push(Box::new(m20261123_000001_policy::Migration));
        all.push(pavior_store::installation::migration());
        all.push(pavior_resource::deleted::migration("m20261202_000001_deleted", DELETED));
        all
    }
}
