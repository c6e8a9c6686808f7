//! A plan.

use sea_orm::entity::prelude::*;

use super::column::Typed;
use crate::domain::plan::Plan;

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "plan")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub organization: String,
    pub name: String,
    pub action: String,
    pub target: String,
    pub requester: String,
    pub digest: String,
    #[sea_orm(column_type = "JsonBinary")]
    pub document: Typed<Plan>,
    pub intent: Option<Vec<u8>>,
    pub expire_time: Option<TimeDateTimeWithTimeZone>,
    pub operation: Option<String>,
    pub create_time: TimeDateTimeWithTimeZone,
}

unrelated!();
