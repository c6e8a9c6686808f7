//! Votes on approvals: one for each voter.

use sea_orm::entity::prelude::*;

use crate::store::column::enum_column;

enum_column!(Choice of crate::domain::approval::Choice {
    Approve = "CHOICE_APPROVE",
    Deny = "CHOICE_DENY",
});

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "approval_votes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub request: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub voter: String,
    pub choice: Choice,
    pub reason: String,
    pub vote_time: i64,
    pub plan_digest: String,
    pub groups: String,
}

/// No relations: what belongs together is read by organization.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
