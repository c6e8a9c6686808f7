//! Decisions that were made.

use pavior_resource::{Key, Table, stored_time};
use pavior_store::filter::FieldMap;
use pavior_store::{StoreError, micros};
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, EntityTrait as _, IntoActiveModel as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::approvals::KeptRequirement;
use super::entity::decision as row;
use super::tables::{corrupt, from_json, to_json, type_of};
use crate::domain::annotation::Level;
use crate::domain::combine::{Effect, Reason};
use crate::domain::decision::DecisionFields;
use crate::domain::input::Stage;
use crate::domain::record::{Requirement, Stored};

/// Most decisions that are removed in one transaction.
const SWEPT: u64 = 1_000;

/// A reason as it is kept.
#[derive(Serialize, Deserialize)]
struct KeptReason {
    rule_id: String,
    policy: String,
    revision: String,
    policy_type: String,
    level: Option<String>,
    message: String,
    fix: String,
    docs: String,
}

impl From<&Reason> for KeptReason {
    fn from(reason: &Reason) -> Self {
        let Reason { rule_id, policy, revision, policy_type, level, message, fix, docs } = reason.clone();
        let (policy_type, level) =
            (policy_type.name().to_owned(), level.map(|level| level.name().to_owned()));
        Self { rule_id, policy, revision, policy_type, level, message, fix, docs }
    }
}

impl TryFrom<KeptReason> for Reason {
    type Error = StoreError;

    fn try_from(kept: KeptReason) -> Result<Self, StoreError> {
        let KeptReason { rule_id, policy, revision, policy_type, level, message, fix, docs } = kept;
        let known = |name: String| {
            let found = Level::ALL.into_iter().find(|level| level.name() == name);
            found.ok_or_else(|| corrupt("reasons"))
        };
        let (policy_type, level) = (type_of(&policy_type)?, level.map(known).transpose()?);
        Ok(Self { rule_id, policy, revision, policy_type, level, message, fix, docs })
    }
}

fn kept(reasons: &[Reason]) -> String {
    to_json(&reasons.iter().map(KeptReason::from).collect::<Vec<_>>())
}

fn told(text: &str) -> Result<Vec<Reason>, StoreError> {
    from_json::<Vec<KeptReason>>(text, "reasons")?.into_iter().map(Reason::try_from).collect()
}

impl Table for DecisionFields {
    type Entity = row::Entity;
    const DEFAULT_ORDER: &'static [(Key, bool)] = &[(Key::CreateTime, true)];
    const ORDER: &'static [(&'static str, &'static [Key])] = &[("create_time", &[Key::CreateTime])];

    fn filter_fields(fields: FieldMap) -> FieldMap {
        let effects = Effect::ALL.into_iter().flat_map(|effect| {
            let name = effect.as_str().to_owned();
            [(name.clone(), name.clone()), (format!("EFFECT_{name}"), name)]
        });
        let stages = Stage::ALL.into_iter().flat_map(|stage| {
            let (kept, name) = (stage.as_str().to_owned(), stage.as_str().to_uppercase());
            [(name.clone(), kept.clone()), (format!("STAGE_{name}"), kept)]
        });
        fields
            .text("principal", row::Column::Principal)
            .text("action", row::Column::Action)
            .text("resource", row::Column::Resource)
            .enumeration("effect", row::Column::Effect, effects)
            .enumeration("stage", row::Column::Stage, stages)
    }

    fn read(row: row::Model) -> Result<Stored<Self>, StoreError> {
        let row::Model {
            uid,
            organization,
            id,
            revision,
            create_time,
            update_time,
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
        } = row;
        let requirements: Vec<KeptRequirement> = from_json(&requirements, "requirements")?;
        let fields = Self {
            principal,
            on_behalf_of,
            action,
            resource,
            stage: Stage::ALL
                .into_iter()
                .find(|one| one.as_str() == stage)
                .ok_or_else(|| corrupt("stage"))?,
            effect: Effect::ALL
                .into_iter()
                .find(|one| one.as_str() == effect)
                .ok_or_else(|| corrupt("effect"))?,
            reasons: told(&reasons)?,
            warnings: told(&warnings)?,
            shadow: told(&shadow)?,
            requirements: requirements.into_iter().map(Requirement::from).collect(),
            granting_roles: from_json(&granting_roles, "granting_roles")?,
            policy_error,
            input_digest,
            plan_digest,
            policies_digest,
            directory_version,
        };
        let (create_time, update_time) = (stored_time(create_time)?, stored_time(update_time)?);
        Ok(Stored { uid, organization, id, revision, create_time, update_time, fields })
    }

    fn write(stored: &Stored<Self>) -> row::Model {
        let Stored { uid, organization, id, revision, create_time, update_time, fields } = stored.clone();
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
        } = fields;
        let requirements: Vec<KeptRequirement> =
            requirements.into_iter().map(KeptRequirement::from).collect();
        row::Model {
            uid,
            organization,
            id,
            revision,
            create_time: micros(create_time),
            update_time: micros(update_time),
            principal,
            on_behalf_of,
            action,
            resource,
            stage: stage.as_str().to_owned(),
            effect: effect.as_str().to_owned(),
            reasons: kept(&reasons),
            warnings: kept(&warnings),
            shadow: kept(&shadow),
            requirements: to_json(&requirements),
            granting_roles: to_json(&granting_roles),
            policy_error,
            input_digest,
            plan_digest,
            policies_digest,
            directory_version,
        }
    }
}

/// Adds decisions, of any organizations: their writer works for all callers.
pub(crate) async fn insert_decisions_unscoped<C: ConnectionTrait>(
    tx: &C,
    decisions: &[Stored<DecisionFields>],
) -> Result<(), StoreError> {
    if decisions.is_empty() {
        return Ok(());
    }
    let rows = decisions.iter().map(|decision| DecisionFields::write(decision).into_active_model());
    row::Entity::insert_many(rows).exec_without_returning(tx).await?;
    Ok(())
}

/// Organizations that have more decisions than they may, each with the time of the newest that is too many.
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

/// Removes the oldest decisions up to a time, of one organization or of all, as many as fit into one transaction. False
/// when there are no more of them.
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
