//! Approvals. Times are microseconds.

use sea_orm::entity::prelude::*;

use crate::store::column::enum_column;

enum_column!(State of crate::domain::approval::State {
    Pending = "PENDING",
    Approved = "APPROVED",
    Denied = "DENIED",
    Expired = "EXPIRED",
    Cancelled = "CANCELLED",
    Invalidated = "INVALIDATED",
});

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
    pub state: State,
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
