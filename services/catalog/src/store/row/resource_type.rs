//! Resource types. Times are microseconds.

use sea_orm::entity::prelude::*;

use super::json::TextList;

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "resource_types")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub organization: String,
    pub id: String,
    pub revision: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub display_name: String,
    pub description: String,
    pub input_schema: String,
    pub output_schema: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub secret_outputs: TextList,
}

/// No relations: what belongs together is read by organization.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
