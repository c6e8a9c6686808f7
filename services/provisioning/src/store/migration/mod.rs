//! Migrations, in order.

use sea_orm_migration::prelude::*;

mod m20261123_000001_tables;
mod m20261125_000001_lives;
mod m20261126_000001_halves;
mod m20261127_000001_runs;
mod m20261128_000001_intents;
mod m20261128_000002_fleets;
mod m20261129_000001_identities;
mod m20261130_000001_parked;
mod m20261201_000001_entities;

/// Every migration of this service.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut all = pavior_store::outbox::migrations();
        all.extend(pavior_store::idempotency::migrations());
        all.push(Box::new(m20261123_000001_tables::Migration));
        all.push(pavior_store::installation::migration());
        all.push(Box::new(m20261125_000001_lives::Migration));
        all.push(Box::new(m20261126_000001_halves::Migration));
        all.push(Box::new(m20261127_000001_runs::Migration));
        all.push(Box::new(m20261128_000001_intents::Migration));
        all.push(Box::new(m20261128_000002_fleets::Migration));
        all.push(Box::new(m20261129_000001_identities::Migration));
        all.push(Box::new(m20261130_000001_parked::Migration));
        all.push(Box::new(m20261201_000001_entities::Migration));
        all
    }
}
