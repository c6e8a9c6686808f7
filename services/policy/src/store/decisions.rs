//! Decisions that were made.

#[cfg(test)]
use pavior_auth::Permit;
use pavior_store::{StoreError, micros};
use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _};
use time::OffsetDateTime;

use super::entity::decision as row;
use super::tables::to_json;
use crate::domain::record::DecisionRecord;

/// Adds decisions, of any organizations: their writer works for all callers.
pub(crate) async fn insert_decisions_unscoped<C: ConnectionTrait>(
    tx: &C,
    records: &[DecisionRecord],
) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let rows = records.iter().map(to_row).collect::<Result<Vec<_>, _>>()?;
    row::Entity::insert_many(rows).exec_without_returning(tx).await?;
    Ok(())
}

/// Removes decisions made before a time, and says how many.
pub(crate) async fn delete_decisions_unscoped<C: ConnectionTrait>(
    tx: &C,
    before: OffsetDateTime,
) -> Result<u64, StoreError> {
    let old = row::Entity::delete_many().filter(row::Column::DecideTime.lt(micros(before)));
    Ok(old.exec(tx).await?.rows_affected)
}

/// A decision by its id.
#[cfg(test)]
pub(crate) async fn decision_by_id<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    id: uuid::Uuid,
) -> Result<Option<DecisionRecord>, StoreError> {
    let mine = row::Entity::find_by_id(id).filter(row::Column::Organization.eq(permit.organization()));
    mine.one(db).await?.map(from_row).transpose()
}

fn to_row(record: &DecisionRecord) -> Result<row::ActiveModel, StoreError> {
    let DecisionRecord {
        id,
        organization,
        principal,
        action,
        resource,
        stage,
        effect,
        policy_ids,
        warning_ids,
        shadow_ids,
        policy_error,
        input_digest,
        plan_digest,
        policy_revision,
        directory_revision,
        decide_time,
    } = record.clone();
    Ok(row::ActiveModel {
        id: Set(id),
        organization: Set(organization),
        principal: Set(principal),
        action: Set(action),
        resource: Set(resource),
        stage: Set(stage),
        effect: Set(effect),
        policy_ids: Set(to_json(&policy_ids)),
        warning_ids: Set(to_json(&warning_ids)),
        shadow_ids: Set(to_json(&shadow_ids)),
        policy_error: Set(policy_error),
        input_digest: Set(input_digest),
        plan_digest: Set(plan_digest),
        policy_revision: Set(policy_revision),
        directory_revision: Set(directory_revision),
        decide_time: Set(micros(decide_time)),
    })
}

#[cfg(test)]
fn from_row(row: row::Model) -> Result<DecisionRecord, StoreError> {
    let row::Model {
        id,
        organization,
        principal,
        action,
        resource,
        stage,
        effect,
        policy_ids,
        warning_ids,
        shadow_ids,
        policy_error,
        input_digest,
        plan_digest,
        policy_revision,
        directory_revision,
        decide_time,
    } = row;
    use super::tables::from_json;
    use pavior_resource::stored_time;
    let ids = |text: &str| from_json::<std::collections::BTreeSet<String>>(text, "policy_ids");
    Ok(DecisionRecord {
        id,
        organization,
        principal,
        action,
        resource,
        stage,
        effect,
        policy_ids: ids(&policy_ids)?,
        warning_ids: ids(&warning_ids)?,
        shadow_ids: ids(&shadow_ids)?,
        policy_error,
        input_digest,
        plan_digest,
        policy_revision,
        directory_revision,
        decide_time: stored_time(decide_time)?,
    })
}
