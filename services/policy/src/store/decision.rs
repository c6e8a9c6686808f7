//! The table of decisions.

use pavior_resource::{Key, Stored, Table, row, stored, stored_time};
use pavior_store::filter::FieldMap;
use pavior_store::{StoreError, micros};
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, EntityTrait as _, IntoActiveModel as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::approval::RequirementColumn;
use super::column::{filter_values, from_json, to_json};
use super::entity::decision as row;
use super::entity::policy::PolicyType;
use crate::domain::approval::Requirement;
use crate::domain::combine::Reason;
use crate::domain::decision::DecisionFields;

/// Most decisions that are deleted in one transaction.
const SWEPT: u64 = 1_000;

/// A reason in a JSON column.
#[derive(Serialize, Deserialize)]
struct ReasonColumn {
    rule_id: String,
    policy: String,
    revision: String,
    policy_type: PolicyType,
    level: Option<row::Level>,
    message: String,
    fix: String,
    docs: String,
}

impl From<&Reason> for ReasonColumn {
    fn from(reason: &Reason) -> Self {
        let Reason { rule_id, policy, revision, policy_type, level, message, fix, docs } = reason.clone();
        let (policy_type, level) = (policy_type.into(), level.map(row::Level::from));
        Self { rule_id, policy, revision, policy_type, level, message, fix, docs }
    }
}

impl From<ReasonColumn> for Reason {
    fn from(column: ReasonColumn) -> Self {
        let ReasonColumn { rule_id, policy, revision, policy_type, level, message, fix, docs } = column;
        let (policy_type, level) = (policy_type.into(), level.map(Into::into));
        Self { rule_id, policy, revision, policy_type, level, message, fix, docs }
    }
}

fn reasons_to_json(reasons: &[Reason]) -> String {
    to_json(&reasons.iter().map(ReasonColumn::from).collect::<Vec<_>>())
}

fn reasons_from_json(text: &str, column: &str) -> Result<Vec<Reason>, StoreError> {
    Ok(from_json::<Vec<ReasonColumn>>(text, column)?.into_iter().map(Reason::from).collect())
}

impl Table for DecisionFields {
    type Entity = row::Entity;
    const DEFAULT_ORDER: &'static [(Key, bool)] = &[(Key::CreateTime, true)];
    const ORDER: &'static [(&'static str, &'static [Key])] = &[("create_time", &[Key::CreateTime])];

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields
            .text("principal", row::Column::Principal)
            .text("action", row::Column::Action)
            .text("resource", row::Column::Resource)
            .enumeration("effect", row::Column::Effect, filter_values::<row::Effect>("EFFECT_"))
            .enumeration("stage", row::Column::Stage, filter_values::<row::Stage>("STAGE_"))
    }

    fn read(row: row::Model) -> Result<Stored<Self>, StoreError> {
        stored!(
            row,
            row::Model {
                principal,
                on_behalf_of,
                action,
                resource,
                stage,
                effect,
                reasons,
                warnings,
                shadow,
                requirements,
                granting_roles,
                policy_error,
                input_digest,
                plan_digest,
                policies_digest,
                directory_version
            },
            {
                let requirements: Vec<RequirementColumn> = from_json(&requirements, "requirements")?;
                Self {
                    principal,
                    on_behalf_of,
                    action,
                    resource,
                    stage: stage.into(),
                    effect: effect.into(),
                    reasons: reasons_from_json(&reasons, "reasons")?,
                    warnings: reasons_from_json(&warnings, "warnings")?,
                    shadow: reasons_from_json(&shadow, "shadow")?,
                    requirements: requirements.into_iter().map(Requirement::from).collect(),
                    granting_roles: from_json(&granting_roles, "granting_roles")?,
                    policy_error,
                    input_digest,
                    plan_digest,
                    policies_digest,
                    directory_version,
                }
            }
        )
    }

    fn write(stored: &Stored<Self>) -> row::Model {
        let Self {
            principal,
            on_behalf_of,
            action,
            resource,
            stage,
            effect,
            reasons,
            warnings,
            shadow,
            requirements,
            granting_roles,
            policy_error,
            input_digest,
            plan_digest,
            policies_digest,
            directory_version,
        } = stored.fields.clone();
        let requirements: Vec<RequirementColumn> =
            requirements.into_iter().map(RequirementColumn::from).collect();
        row!(
            stored,
            row::Model {
                principal,
                on_behalf_of,
                action,
                resource,
                stage: stage.into(),
                effect: effect.into(),
                reasons: reasons_to_json(&reasons),
                warnings: reasons_to_json(&warnings),
                shadow: reasons_to_json(&shadow),
                requirements: to_json(&requirements),
                granting_roles: to_json(&granting_roles),
                policy_error,
                input_digest,
                plan_digest,
                policies_digest,
                directory_version,
            }
        )
    }
}

/// Inserts decisions of any organizations. Those that are there already stay: they are written again where it is not known
/// whether a commit has held.
pub(crate) async fn insert_decisions_unscoped<C: ConnectionTrait>(
    tx: &C,
    decisions: &[Stored<DecisionFields>],
) -> Result<(), StoreError> {
    if decisions.is_empty() {
        return Ok(());
    }
    let rows = decisions.iter().map(|decision| DecisionFields::write(decision).into_active_model());
    let again = OnConflict::column(row::Column::Uid).do_nothing().to_owned();
    row::Entity::insert_many(rows).on_conflict(again).exec_without_returning(tx).await?;
    Ok(())
}

/// Organizations with more than `max` decisions, each with the time of the newest decision beyond them.
pub(crate) async fn crowded_unscoped<C: ConnectionTrait>(
    db: &C,
    max: u64,
) -> Result<Vec<(String, OffsetDateTime)>, StoreError> {
    let crowded: Vec<String> = row::Entity::find()
        .select_only()
        .column(row::Column::Organization)
        .group_by(row::Column::Organization)
        .having(Expr::col(row::Column::Uid).count().gt(i64::try_from(max).unwrap_or(i64::MAX)))
        .into_tuple()
        .all(db)
        .await?;
    let mut found = Vec::with_capacity(crowded.len());
    for organization in crowded {
        let first: Option<i64> = row::Entity::find()
            .select_only()
            .column(row::Column::CreateTime)
            .filter(row::Column::Organization.eq(organization.as_str()))
            .order_by_desc(row::Column::CreateTime)
            .offset(max)
            .limit(1)
            .into_tuple()
            .one(db)
            .await?;
        if let Some(time) = first {
            found.push((organization, stored_time(time)?));
        }
    }
    Ok(found)
}

/// Deletes the oldest decisions up to a time, of one organization or of all, as many as fit into one transaction. Returns
/// whether there may be more.
pub(crate) async fn sweep_decisions_unscoped<C: ConnectionTrait>(
    tx: &C,
    organization: Option<&str>,
    until: OffsetDateTime,
) -> Result<bool, StoreError> {
    let of = organization.map(|organization| row::Column::Organization.eq(organization));
    let old: Vec<Uuid> = row::Entity::find()
        .select_only()
        .column(row::Column::Uid)
        .filter(Condition::all().add(row::Column::CreateTime.lte(micros(until))).add_option(of))
        .order_by_asc(row::Column::CreateTime)
        .limit(SWEPT)
        .into_tuple()
        .all(tx)
        .await?;
    let more = old.len() as u64 == SWEPT;
    if !old.is_empty() {
        row::Entity::delete_many().filter(row::Column::Uid.is_in(old)).exec(tx).await?;
    }
    Ok(more)
}
