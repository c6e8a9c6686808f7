//! Decisions that were not plain reads. The lists are JSON.

use sea_orm::entity::prelude::*;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "decisions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub organization: String,
    pub principal: String,
    pub action: String,
    pub resource: String,
    pub stage: String,
    pub effect: String,
    pub policy_ids: String,
    pub warning_ids: String,
    pub shadow_ids: String,
    pub policy_error: bool,
    pub input_digest: String,
    pub plan_digest: String,
    pub policy_revision: String,
    pub directory_revision: String,
    pub decide_time: i64,
}

/// No relations: what belongs together is read by organization.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
