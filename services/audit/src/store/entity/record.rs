//! Records: the bytes that are hashed, and what of them can be looked for. Never updated.

use sea_orm::entity::prelude::*;

use super::column::{AuditClass, Effect, Status};

/// A row of `audit_record`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_record")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub log: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub idx: i64,
    pub leaf_hash: Vec<u8>,
    pub body: Vec<u8>,
    pub body_bytes: i64,
    pub event_id: String,
    pub receive_time: i64,
    pub event_time: i64,
    pub audit_class: AuditClass,
    pub action: String,
    pub principal: String,
    pub on_behalf_of: String,
    pub target: String,
    pub target_type: String,
    pub project: String,
    pub effect: Effect,
    pub status: Status,
    pub call_id: String,
    pub request_id: String,
    pub operation: String,
    pub service: String,
    pub epoch: String,
    pub seq: i64,
}

without_relations!();
