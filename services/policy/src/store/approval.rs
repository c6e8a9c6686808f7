//! The tables of approvals and of their votes.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_resource::{Key, Rows, Stored, Table, confined, row, stored, stored_time};
use pavior_store::filter::FieldMap;
use pavior_store::{StoreError, micros};
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    Select,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::column::{filter_values, from_json, to_json};
use super::entity::approval::State;
use super::entity::{approval as row, approval_vote as vote};
use crate::domain::approval::{ApprovalFields, CastVote, Requirement, Vote};

/// A requirement in a JSON column.
#[derive(Serialize, Deserialize)]
pub(super) struct RequirementColumn {
    group: String,
    quorum: u32,
    rule_ids: Vec<String>,
    ttl_seconds: Option<i64>,
}

impl From<RequirementColumn> for Requirement {
    fn from(column: RequirementColumn) -> Self {
        let RequirementColumn { group, quorum, rule_ids, ttl_seconds } = column;
        Self { group, quorum, rule_ids, ttl_seconds }
    }
}

impl From<Requirement> for RequirementColumn {
    fn from(requirement: Requirement) -> Self {
        let Requirement { group, quorum, rule_ids, ttl_seconds } = requirement;
        Self { group, quorum, rule_ids, ttl_seconds }
    }
}

impl Table for ApprovalFields {
    type Entity = row::Entity;
    // Ids are UUIDs of version 7: the newest first, from the index of the names.
    const DEFAULT_ORDER: &'static [(Key, bool)] = &[(Key::Id, true)];

    fn filter_fields(fields: FieldMap) -> FieldMap {
        use row::Column as C;
        fields
            .enumeration("state", C::State, filter_values::<State>("STATE_"))
            .text("requester", C::Requester)
            .text("resource", C::Resource)
            .text("operation", C::Operation)
    }

    /// Without the votes, which have a table of their own, see [`with_votes`].
    fn read(row: row::Model) -> Result<Stored<Self>, StoreError> {
        stored!(
            row,
            row::Model {
                state,
                requester,
                on_behalf_of,
                author,
                action,
                resource,
                operation,
                plan,
                plan_digest,
                summary,
                requirements,
                expire_time,
                end_reason
            },
            {
                let requirements: Vec<RequirementColumn> = from_json(&requirements, "requirements")?;
                Self {
                    state: state.into(),
                    requester,
                    on_behalf_of,
                    author,
                    action,
                    resource,
                    operation,
                    plan,
                    plan_digest,
                    summary,
                    requirements: requirements.into_iter().map(Requirement::from).collect(),
                    votes: Vec::new(),
                    expire_time: stored_time(expire_time)?,
                    end_reason,
                }
            }
        )
    }

    fn write(stored: &Stored<Self>) -> row::Model {
        let Self {
            state,
            requester,
            on_behalf_of,
            author,
            action,
            resource,
            operation,
            plan,
            plan_digest,
            summary,
            requirements,
            votes: _,
            expire_time,
            end_reason,
        } = stored.fields.clone();
        let requirements: Vec<RequirementColumn> =
            requirements.into_iter().map(RequirementColumn::from).collect();
        row!(
            stored,
            row::Model {
                state: state.into(),
                requester,
                on_behalf_of,
                author,
                action,
                resource,
                operation,
                plan,
                plan_digest,
                summary,
                requirements: to_json(&requirements),
                expire_time: micros(expire_time),
                end_reason,
            }
        )
    }
}

fn scoped(permit: &Permit) -> Select<row::Entity> {
    row::Entity::find().filter(row::Column::Organization.eq(permit.organization()))
}

/// The approval with this id, with its votes.
pub(crate) async fn approval_by_id<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    id: &str,
) -> Result<Option<Stored<ApprovalFields>>, StoreError> {
    let found = Rows::new(db).find(permit, "", id).await?;
    Ok(with_votes(db, permit, found.into_iter().collect()).await?.pop())
}

/// The approval of an operation for one plan, of which there is at most one.
pub(crate) async fn approval_for_plan<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    operation: &str,
    plan_digest: &str,
) -> Result<Option<Stored<ApprovalFields>>, StoreError> {
    let mine = scoped(permit).filter(row::Column::Operation.eq(operation));
    let found = mine.filter(row::Column::PlanDigest.eq(plan_digest)).all(db).await?;
    let found = found.into_iter().map(ApprovalFields::read).collect::<Result<_, _>>()?;
    Ok(with_votes(db, permit, found).await?.pop())
}

/// Several approvals by id, with their votes.
pub(crate) async fn approvals_by_ids<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    ids: &[String],
) -> Result<BTreeMap<String, Stored<ApprovalFields>>, StoreError> {
    let found = with_votes(db, permit, Rows::new(db).find_many(permit, "", ids).await?).await?;
    Ok(found.into_iter().map(|stored| (stored.id.clone(), stored)).collect())
}

/// Ids of at most `limit` pending approvals that have expired.
pub(crate) async fn due_approvals<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    now: OffsetDateTime,
    limit: u64,
) -> Result<Vec<String>, StoreError> {
    let due = scoped(permit)
        .filter(row::Column::State.eq(State::Pending))
        .filter(row::Column::ExpireTime.lte(micros(now)));
    let due = due.order_by_asc(row::Column::ExpireTime).limit(limit).all(db).await?;
    Ok(due.into_iter().map(|row| row.id).collect())
}

/// The organizations with pending approvals that have expired.
pub(crate) async fn due_organizations_unscoped<C: ConnectionTrait>(
    db: &C,
    now: OffsetDateTime,
) -> Result<Vec<String>, StoreError> {
    let due = row::Entity::find()
        .select_only()
        .column(row::Column::Organization)
        .distinct()
        .filter(row::Column::State.eq(State::Pending))
        .filter(row::Column::ExpireTime.lte(micros(now)));
    Ok(due.into_tuple::<String>().all(db).await?)
}

/// Adds a vote to an approval.
pub(crate) async fn insert_vote<C: ConnectionTrait>(
    tx: &C,
    permit: &Permit,
    approval: &Stored<ApprovalFields>,
    cast: &CastVote,
) -> Result<(), StoreError> {
    confined(permit, &approval.organization)?;
    let CastVote { vote: Vote { voter, choice, groups }, reason, vote_time, plan_digest } = cast.clone();
    let new = vote::ActiveModel {
        request: Set(approval.uid),
        voter: Set(voter),
        choice: Set(choice.into()),
        reason: Set(reason),
        vote_time: Set(micros(vote_time)),
        plan_digest: Set(plan_digest),
        groups: Set(to_json(&groups)),
    };
    vote::Entity::insert(new).exec_without_returning(tx).await?;
    Ok(())
}

/// Adds to approvals the votes that were cast.
pub(crate) async fn with_votes<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    mut approvals: Vec<Stored<ApprovalFields>>,
) -> Result<Vec<Stored<ApprovalFields>>, StoreError> {
    if approvals.is_empty() {
        return Ok(approvals);
    }
    let mut uids = Vec::<Uuid>::with_capacity(approvals.len());
    for approval in &approvals {
        confined(permit, &approval.organization)?;
        uids.push(approval.uid);
    }
    let cast = vote::Entity::find().filter(vote::Column::Request.is_in(uids));
    let cast = cast.order_by_asc(vote::Column::VoteTime).order_by_asc(vote::Column::Voter).all(db).await?;
    let mut votes = BTreeMap::<Uuid, Vec<CastVote>>::new();
    for row in cast {
        let vote::Model { request, voter, choice, reason, vote_time, plan_digest, groups } = row;
        let groups = from_json(&groups, "groups")?;
        let vote = Vote { voter, choice: choice.into(), groups };
        let cast = CastVote { vote, reason, vote_time: stored_time(vote_time)?, plan_digest };
        votes.entry(request).or_default().push(cast);
    }
    for approval in &mut approvals {
        approval.fields.votes = votes.remove(&approval.uid).unwrap_or_default();
    }
    Ok(approvals)
}
