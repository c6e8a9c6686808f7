//! Resource definitions. Times are microseconds; `resource_type` is a resource name; without `monthly_cost` nobody knows it.

use sea_orm::entity::prelude::*;

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "resource_definitions")]
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
    pub resource_type: String,
    pub driver: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub driver_inputs: Json,
    #[sea_orm(column_type = "JsonBinary")]
    pub match_criteria: Json,
    pub monthly_cost: Option<String>,
}

/// No relations: what belongs together is read by organization.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
