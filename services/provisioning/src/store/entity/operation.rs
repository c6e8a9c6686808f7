//! An operation.

use sea_orm::entity::prelude::*;

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "operation")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub organization: String,
    pub name: String,
    pub kind: String,
    pub action: String,
    pub target: String,
    pub project: String,
    pub state: String,
    pub cancel_requested: bool,
    pub plan: Uuid,
    pub plan_digest: String,
    pub requester: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub principal: Json,
    pub request_id: String,
    pub approval: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub approvals: Json,
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub error: Option<Json>,
    /// The target as it was when it went.
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub gone: Option<Json>,
    #[sea_orm(column_type = "JsonBinary")]
    pub settings: Json,
    pub event_seq: i64,
    pub log_seq: i64,
    pub generation: i64,
    pub engine_version: String,
    pub deadline: i64,
    pub undo_timeout: i64,
    pub owner: String,
    pub environment_class: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub labels: Json,
    pub canceller: String,
    pub deleter: String,
    pub delete_time: Option<TimeDateTimeWithTimeZone>,
    pub create_time: TimeDateTimeWithTimeZone,
    pub update_time: TimeDateTimeWithTimeZone,
    pub start_time: Option<TimeDateTimeWithTimeZone>,
    pub end_time: Option<TimeDateTimeWithTimeZone>,
}

/// No relations: rows are joined by name.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
