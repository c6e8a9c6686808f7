//! Something that happened in an operation.

use sea_orm::entity::prelude::*;

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "event")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub operation: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub seq: i64,
    pub time: TimeDateTimeWithTimeZone,
    pub kind: String,
    pub step: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub body: Json,
}

unrelated!();
