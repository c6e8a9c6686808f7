//! A pass of a pipeline.

use sea_orm::entity::prelude::*;

use super::column::Typed;
use crate::domain::failure::StepFailure;
use crate::domain::run::{RunCause, RunState};

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "run")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub organization: String,
    pub project: String,
    pub pipeline: String,
    pub name: String,
    pub state: RunState,
    /// What was asked for.
    pub revision: String,
    pub commit_id: String,
    pub cause: RunCause,
    #[sea_orm(column_type = "JsonBinary")]
    pub steps: Json,
    #[sea_orm(column_type = "JsonBinary")]
    pub artifacts: Json,
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub error: Option<Typed<StepFailure>>,
    pub operation: String,
    pub creator: String,
    pub create_time: TimeDateTimeWithTimeZone,
    pub end_time: Option<TimeDateTimeWithTimeZone>,
}

unrelated!();
