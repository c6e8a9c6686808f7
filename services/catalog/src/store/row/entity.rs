//! Entities. Times are microseconds; `digest` is of the content.

use sea_orm::entity::prelude::*;

use super::json::{TextList, TextMap};

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "entities")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub organization: String,
    pub id: String,
    pub revision: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub display_name: String,
    pub kind: String,
    pub description: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub labels: TextMap,
    #[sea_orm(column_type = "JsonBinary")]
    pub annotations: TextMap,
    #[sea_orm(column_type = "JsonBinary")]
    pub tags: TextList,
    #[sea_orm(column_type = "JsonBinary")]
    pub links: Json,
    pub owner: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub spec: Json,
    pub origin: String,
    pub digest: String,
}

/// No relations: what belongs together is read by organization.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
