//! A project.

use std::collections::BTreeMap;

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use super::column::Typed;
use crate::domain::project::ProjectState;

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "project")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub organization: String,
    pub name: String,
    pub display_name: String,
    pub owner: String,
    pub template_version: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub parameters: Json,
    #[sea_orm(column_type = "JsonBinary")]
    pub labels: Typed<BTreeMap<String, String>>,
    pub state: ProjectState,
    pub operation: String,
    pub creator: String,
    pub create_time: TimeDateTimeWithTimeZone,
    pub update_time: TimeDateTimeWithTimeZone,
    pub revision: i64,
    pub run_seq: i64,
    pub touched: i64,
}

unrelated!();
