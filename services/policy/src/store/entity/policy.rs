//! Policies.

use sea_orm::entity::prelude::*;

use crate::store::column::enum_column;

enum_column!(PolicyType of crate::domain::policy::PolicyType {
    Access = "POLICY_TYPE_ACCESS",
    Guardrail = "POLICY_TYPE_GUARDRAIL",
});

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "policies")]
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
    pub policy_type: PolicyType,
    pub source: String,
    pub digest: String,
    pub text_revision: i64,
}

/// No relations: what belongs together is read by organization.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
