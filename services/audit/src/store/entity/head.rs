//! Heads: how many records each log has and the tree hash over them. Locked by whoever appends.

use sea_orm::entity::prelude::*;

/// A row of `audit_head`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_head")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub log: String,
    pub origin: String,
    pub tree_size: i64,
    pub root_hash: Vec<u8>,
}

without_relations!();
