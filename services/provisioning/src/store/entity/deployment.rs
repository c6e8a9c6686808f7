//! An artifact put into an environment.

use sea_orm::entity::prelude::*;

use crate::domain::deployment::DeploymentState;

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "deployment")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub organization: String,
    pub project: String,
    pub environment: String,
    pub resource: String,
    pub name: String,
    pub state: DeploymentState,
    pub run: String,
    pub commit_id: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub artifact: Json,
    pub url: String,
    pub source_deployment: String,
    pub operation: String,
    pub creator: String,
    pub create_time: TimeDateTimeWithTimeZone,
    pub update_time: TimeDateTimeWithTimeZone,
}

unrelated!();
