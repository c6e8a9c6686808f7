//! Something that a driver made.

use sea_orm::entity::prelude::*;

use super::column::Typed;
use crate::domain::plan::Spec;
use crate::domain::resource::ResourceState;

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "resource")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub organization: String,
    pub project: String,
    pub environment: String,
    pub name: String,
    pub resource_type: String,
    pub type_id: String,
    pub resource_definition: String,
    pub driver: String,
    pub driver_version: String,
    pub identity: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub inputs: Json,
    #[sea_orm(column_type = "JsonBinary")]
    pub outputs: Json,
    #[sea_orm(column_type = "JsonBinary")]
    pub driver_state: Json,
    #[sea_orm(column_type = "JsonBinary")]
    pub spec: Typed<Spec>,
    pub sealed_inputs: String,
    pub url: String,
    pub state: ResourceState,
    pub generation: i64,
    pub fence: i64,
    #[sea_orm(column_type = "JsonBinary")]
    pub depends_on: Typed<Vec<String>>,
    pub monthly_cost: String,
    pub undoable: bool,
    pub create_time: TimeDateTimeWithTimeZone,
    pub update_time: TimeDateTimeWithTimeZone,
    pub revision: i64,
}

unrelated!();
