//! An environment.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::domain::environment::EnvironmentState;

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "environment")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub organization: String,
    pub project: String,
    pub name: String,
    pub display_name: String,
    pub class: String,
    pub template_version: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub parameters: Json,
    pub ttl_seconds: Option<i64>,
    pub expire_time: Option<TimeDateTimeWithTimeZone>,
    pub state: EnvironmentState,
    pub operation: String,
    pub creator: String,
    pub create_time: TimeDateTimeWithTimeZone,
    pub update_time: TimeDateTimeWithTimeZone,
    pub revision: i64,
    pub deployment_seq: i64,
}

unrelated!();
