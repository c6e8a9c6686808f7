//! A sealed value.

use sea_orm::entity::prelude::*;

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "secret")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub reference: String,
    pub resource: Uuid,
    pub sealed: Vec<u8>,
    pub create_time: TimeDateTimeWithTimeZone,
}

unrelated!();
