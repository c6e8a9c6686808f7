//! Resource definitions. Times are microseconds; `resource_type` is a resource name; without `monthly_cost` nobody knows it.

use sea_orm::FromJsonQueryResult;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a definition applies to, any of which is enough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct MatchCriteria(pub Vec<Criteria>);

/// One context; each field that is set must match. Each must be there, so that none is taken for absent by mistake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Criteria {
    #[serde(deserialize_with = "Option::deserialize")]
    pub resource_id: Option<String>,
    #[serde(deserialize_with = "Option::deserialize")]
    pub project: Option<String>,
    #[serde(deserialize_with = "Option::deserialize")]
    pub environment_class_id: Option<String>,
    pub project_labels: BTreeMap<String, String>,
}

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "resource_definitions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub organization: String,
    pub id: String,
    pub revision: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub display_name: String,
    pub description: String,
    pub resource_type: String,
    pub driver: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub driver_inputs: Json,
    #[sea_orm(column_type = "JsonBinary")]
    pub match_criteria: MatchCriteria,
    pub monthly_cost: Option<String>,
}

/// No relations: what belongs together is read by organization.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
