//! Role bindings. `role` and `scope` are resource names.

use sea_orm::entity::prelude::*;

use crate::store::column::enum_column;

enum_column!(Reach of crate::domain::role_binding::Reach {
    All = "REACH_ALL",
    Owned = "REACH_OWNED",
});

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "role_bindings")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub organization: String,
    pub id: String,
    pub revision: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub role: String,
    pub members: String,
    pub scope: String,
    pub reach: Reach,
}

/// No relations: what belongs together is read by organization.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
