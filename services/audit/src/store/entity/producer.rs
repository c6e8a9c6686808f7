//! Producers: the last sequence number that each epoch of a service was acknowledged.

use sea_orm::entity::prelude::*;

/// A row of `audit_producer`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_producer")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub service: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub epoch: String,
    pub last_seq: i64,
}

without_relations!();
