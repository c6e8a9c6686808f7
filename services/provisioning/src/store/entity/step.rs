//! A step of an operation.

use sea_orm::entity::prelude::*;

use super::column::Typed;
use crate::domain::failure::StepFailure;
use crate::domain::operation::{Prior, StepState};
use crate::domain::plan::{Action, Spec};

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "step")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub operation: Uuid,
    pub organization: String,
    pub ordinal: i32,
    pub name: String,
    pub resource: String,
    pub driver: String,
    pub driver_version: String,
    pub action: Action,
    #[sea_orm(column_type = "JsonBinary")]
    pub depends_on: Typed<Vec<String>>,
    pub undoable: bool,
    #[sea_orm(column_type = "JsonBinary")]
    pub spec: Typed<Spec>,
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub prior: Option<Typed<Prior>>,
    pub subject: String,
    pub state: StepState,
    pub remains: bool,
    pub former_gone: bool,
    pub attempt: i32,
    pub undo_attempt: i32,
    pub waits: i32,
    pub fence: i64,
    pub worker: String,
    pub lease_until: i64,
    pub not_before: i64,
    pub idempotency_key: String,
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub checkpoint: Option<Json>,
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub outputs: Option<Json>,
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub error: Option<Typed<StepFailure>>,
    pub start_time: Option<TimeDateTimeWithTimeZone>,
    pub end_time: Option<TimeDateTimeWithTimeZone>,
}

/// How a step is joined.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// The operation that it belongs to.
    #[sea_orm(
        belongs_to = "super::operation::Entity",
        from = "Column::Operation",
        to = "super::operation::Column::Id"
    )]
    Operation,
}

impl Related<super::operation::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Operation.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
