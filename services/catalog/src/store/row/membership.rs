//! Memberships. Times are microseconds; `member` is a resource name, and its id is that of the membership. `by_group` and
//! `by_member` say whose imported document speaks of it.

use sea_orm::entity::prelude::*;

/// Who says that a member belongs to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum Source {
    #[sea_orm(string_value = "API")]
    Api,
    #[sea_orm(string_value = "IMPORT")]
    Import,
}

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "memberships")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub organization: String,
    pub id: String,
    pub revision: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub group_id: String,
    pub member: String,
    pub source: Source,
    pub by_group: bool,
    pub by_member: bool,
}

/// No relations: what belongs together is read by organization.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
