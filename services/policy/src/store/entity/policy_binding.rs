//! Policy bindings. `policy` is a resource name; the lists are JSON.

use sea_orm::entity::prelude::*;

use crate::store::column::enum_column;

enum_column!(Mode of crate::domain::policy_binding::Mode {
    Off = "MODE_OFF",
    Shadow = "MODE_SHADOW",
    Warn = "MODE_WARN",
    Enforce = "MODE_ENFORCE",
});

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "policy_bindings")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub organization: String,
    pub id: String,
    pub revision: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub policy: String,
    pub projects: String,
    pub environment_class_ids: String,
    pub mode: Mode,
    pub text_revision: Option<i64>,
}

/// No relations: what belongs together is read by organization.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
