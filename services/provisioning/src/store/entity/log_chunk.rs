//! Lines that a step wrote.

use sea_orm::entity::prelude::*;

use super::column::Typed;

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "log_chunk")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub operation: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub seq: i64,
    pub time: TimeDateTimeWithTimeZone,
    pub step: String,
    pub attempt: i32,
    #[sea_orm(column_type = "JsonBinary")]
    pub lines: Typed<Vec<(String, String)>>,
}

unrelated!();
