//! Approvals. Times are microseconds.

use sea_orm::entity::prelude::*;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "approvals")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub organization: String,
    pub id: String,
    pub revision: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub state: String,
    pub requester: String,
    pub on_behalf_of: Option<String>,
    pub author: String,
    pub action: String,
    pub resource: String,
    pub operation: String,
    pub plan: String,
    pub plan_digest: String,
    pub summary: String,
    pub requirements: String,
    pub expire_time: i64,
    pub end_reason: String,
}

/// No relations: what belongs together is read by organization.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
