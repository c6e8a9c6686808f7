//! An operation.

use std::collections::BTreeMap;

use pavior_core::principal::Principal;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use super::column::Typed;
use crate::domain::environment::Endpoint;
use crate::domain::failure::Failure;
use crate::domain::operation::OperationState;
use crate::domain::plan::Kind;

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "operation")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub organization: String,
    pub name: String,
    pub kind: Kind,
    pub action: String,
    pub target: String,
    pub project: String,
    pub state: OperationState,
    pub cancel_requested: bool,
    /// See `domain::Operation`.
    pub parked: Option<Uuid>,
    pub plan: Uuid,
    pub plan_digest: String,
    pub requester: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub principal: Typed<Principal>,
    pub request_id: String,
    pub approval: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub approvals: Typed<Vec<String>>,
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub error: Option<Typed<Failure>>,
    /// The target as it was when it went.
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub gone: Option<Typed<RemovedRow>>,
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
    pub labels: Typed<BTreeMap<String, String>>,
    pub canceller: String,
    pub deleter: String,
    pub delete_time: Option<TimeDateTimeWithTimeZone>,
    pub create_time: TimeDateTimeWithTimeZone,
    pub update_time: TimeDateTimeWithTimeZone,
    pub start_time: Option<TimeDateTimeWithTimeZone>,
    pub end_time: Option<TimeDateTimeWithTimeZone>,
}

/// The target of an operation that removed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RemovedRow {
    /// An environment, with what was shown of its workloads.
    Environment { row: Box<super::environment::Model>, endpoints: Vec<Endpoint>, deployments: Vec<String> },
    /// A project.
    Project(Box<super::project::Model>),
}

unrelated!();
