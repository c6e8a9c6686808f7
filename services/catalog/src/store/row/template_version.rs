//! Published versions. They are inserted and never changed; `sort_key` sorts as versions do.

use sea_orm::entity::prelude::*;

use super::json::TextList;

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "template_versions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub organization: String,
    pub id: String,
    pub revision: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub template: String,
    pub sort_key: String,
    pub document: String,
    pub digest: String,
    pub parameter_schema: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub environment_classes: TextList,
    #[sea_orm(column_type = "JsonBinary")]
    pub content: Json,
}

/// No relations: what belongs together is read by organization.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
