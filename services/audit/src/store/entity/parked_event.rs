//! Parked events: the bytes that will be records of a held log, in the order in which they came. They are in no tree.

use sea_orm::entity::prelude::*;

/// A row of `audit_parked`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_parked")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub arrival: i64,
    pub log: String,
    pub service: String,
    pub epoch: String,
    pub seq: i64,
    pub event_id: String,
    pub leaf_hash: Vec<u8>,
    pub body_bytes: i64,
    pub body: Vec<u8>,
}

without_relations!();
