//! Decisions that were not plain reads. The lists are JSON; the id is that of the name, a UUID like `uid`.

use sea_orm::entity::prelude::*;

use crate::store::column::enum_column;

enum_column!(Stage of crate::domain::input::Stage {
    Admission = "admission",
    Plan = "plan",
    Execution = "execution",
});
enum_column!(Effect of crate::domain::combine::Effect {
    Allow = "ALLOW",
    RequireApproval = "REQUIRE_APPROVAL",
    Deny = "DENY",
});
enum_column!(
    /// In the lists of reasons.
    Level of crate::domain::annotation::Level {
        Advisory = "LEVEL_ADVISORY",
        Soft = "LEVEL_SOFT",
        Hard = "LEVEL_HARD",
    }
);

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "decisions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub organization: String,
    pub id: String,
    pub revision: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub principal: String,
    pub on_behalf_of: Option<String>,
    pub action: String,
    pub resource: String,
    pub stage: Stage,
    pub effect: Effect,
    pub reasons: String,
    pub warnings: String,
    pub shadow: String,
    pub requirements: String,
    pub granting_roles: String,
    pub policy_error: bool,
    pub input_digest: String,
    pub plan_digest: String,
    pub policies_digest: String,
    pub directory_version: String,
}

/// No relations: what belongs together is read by organization.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
