//! Tiles: up to 256 hashes of one level of a log's tree (C2SP tlog-tiles). An unfinished one grows in place.

use sea_orm::entity::prelude::*;

/// A row of `audit_tile`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_tile")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub log: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub level: i32,
    #[sea_orm(primary_key, auto_increment = false)]
    pub idx: i64,
    pub width: i32,
    pub hashes: Vec<u8>,
}

without_relations!();
