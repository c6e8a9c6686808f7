//! Approvals and their votes.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_resource::{Rows, Table, stored_time};
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

use super::entity::{approval as row, approval_vote as vote};
use super::tables::{corrupt, from_json, to_json};
use crate::domain::approval::{Choice, State, Vote};
use crate::domain::record::{ApprovalFields, CastVote, Requirement, Stored};

/// A requirement as it is kept.
#[derive(Serialize, Deserialize)]
pub(super) struct KeptRequirement {
    group: String,
    quorum: u32,
    rule_ids: Vec<String>,
    ttl_seconds: Option<i64>,
}

impl From<KeptRequirement> for Requirement {
    fn from(kept: KeptRequirement) -> Self {
        let KeptRequirement { group, quorum, rule_ids, ttl_seconds } = kept;
        Self { group, quorum, rule_ids, ttl_seconds }
    }
}

impl From<Requirement> for KeptRequirement {
    fn from(requirement: Requirement) -> Self {
        let Requirement { group, quorum, rule_ids, ttl_seconds } = requirement;
        Self { group, quorum, rule_ids, ttl_seconds }
    }
}

impl Table for ApprovalFields {
    type Entity = row::Entity;

    fn filter_fields(fields: FieldMap) -> FieldMap {
        use row::Column as C;
        let states = State::ALL.into_iter().flat_map(|state| {
            let name = state.as_str().to_owned();
            [(name.clone(), name.clone()), (format!("STATE_{name}"), name)]
        });
        fields
            .enumeration("state", C::State, states)
            .text("requester", C::Requester)
            .text("resource", C::Resource)
            .text("operation", C::Operation)
    }

    /// Votes are in a table of their own, see [`with_votes`].
    fn read(row: row::Model) -> Result<Stored<Self>, StoreError> {
        let row::Model {
            uid,
            organization,
            id,
            revision,
            create_time,
            update_time,
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
            end_reason,
        } = row;
        let requirements: Vec<KeptRequirement> = from_json(&requirements, "requirements")?;
        let spec = ApprovalFields {
            state: State::parse(&state).ok_or_else(|| corrupt("state"))?,
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
        };
        let (create_time, update_time) = (stored_time(create_time)?, stored_time(update_time)?);
        Ok(Stored { uid, organization, id, revision, create_time, update_time, fields: spec })
    }

    fn write(stored: &Stored<Self>) -> row::Model {
        let Stored { uid, organization, id, revision, create_time, update_time, fields: spec } =
            stored.clone();
        let ApprovalFields {
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
        } = spec;
        let requirements: Vec<KeptRequirement> =
            requirements.into_iter().map(KeptRequirement::from).collect();
        row::Model {
            uid,
            organization,
            id,
            revision,
            create_time: micros(create_time),
            update_time: micros(update_time),
            state: state.as_str().to_owned(),
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
    }
}

fn scoped(permit: &Permit) -> Select<row::Entity> {
    row::Entity::find().filter(row::Column::Organization.eq(permit.organization()))
}

/// The approval of an id, with its votes.
pub(crate) async fn approval_by_id<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    id: &str,
) -> Result<Option<Stored<ApprovalFields>>, StoreError> {
    let found = Rows::new(db).find(permit, "", id).await?;
    Ok(with_votes(db, permit, found.into_iter().collect()).await?.pop())
}

/// The approval of an operation for one plan: there is at most one.
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

/// Those of several ids, by id.
pub(crate) async fn approvals_by_ids<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    ids: &[String],
) -> Result<BTreeMap<String, Stored<ApprovalFields>>, StoreError> {
    let found = with_votes(db, permit, Rows::new(db).find_many(permit, "", ids).await?).await?;
    Ok(found.into_iter().map(|stored| (stored.id.clone(), stored)).collect())
}

/// Ids of the pending approvals whose time is over, at most `limit`.
pub(crate) async fn due_approvals<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    now: OffsetDateTime,
    limit: u64,
) -> Result<Vec<String>, StoreError> {
    let due = scoped(permit)
        .filter(row::Column::State.eq(State::Pending.as_str()))
        .filter(row::Column::ExpireTime.lte(micros(now)));
    let due = due.order_by_asc(row::Column::ExpireTime).limit(limit).all(db).await?;
    Ok(due.into_iter().map(|row| row.id).collect())
}

/// The organizations that have such.
pub(crate) async fn due_organizations_unscoped<C: ConnectionTrait>(
    db: &C,
    now: OffsetDateTime,
) -> Result<Vec<String>, StoreError> {
    let due = row::Entity::find()
        .select_only()
        .column(row::Column::Organization)
        .distinct()
        .filter(row::Column::State.eq(State::Pending.as_str()))
        .filter(row::Column::ExpireTime.lte(micros(now)));
    Ok(due.into_tuple::<String>().all(db).await?)
}

/// Adds a vote. The approval must have been read with the permit.
pub(crate) async fn insert_vote<C: ConnectionTrait>(
    tx: &C,
    _permit: &Permit,
    request: Uuid,
    cast: &CastVote,
) -> Result<(), StoreError> {
    let CastVote { vote: Vote { voter, choice, groups }, reason, vote_time, plan_digest } = cast.clone();
    let new = vote::ActiveModel {
        request: Set(request),
        voter: Set(voter),
        choice: Set(choice.name().to_owned()),
        reason: Set(reason),
        vote_time: Set(micros(vote_time)),
        plan_digest: Set(plan_digest),
        groups: Set(to_json(&groups)),
    };
    vote::Entity::insert(new).exec_without_returning(tx).await?;
    Ok(())
}

/// Puts votes to their approvals, which must have been read with the permit.
pub(crate) async fn with_votes<C: ConnectionTrait>(
    db: &C,
    _permit: &Permit,
    mut requests: Vec<Stored<ApprovalFields>>,
) -> Result<Vec<Stored<ApprovalFields>>, StoreError> {
    if requests.is_empty() {
        return Ok(requests);
    }
    let uids: Vec<Uuid> = requests.iter().map(|stored| stored.uid).collect();
    let cast = vote::Entity::find().filter(vote::Column::Request.is_in(uids));
    let cast = cast.order_by_asc(vote::Column::VoteTime).order_by_asc(vote::Column::Voter).all(db).await?;
    let mut votes = BTreeMap::<Uuid, Vec<CastVote>>::new();
    for row in cast {
        let vote::Model { request, voter, choice, reason, vote_time, plan_digest, groups } = row;
        let groups = from_json(&groups, "groups")?;
        let choice = Choice::ALL.into_iter().find(|c| c.name() == choice).ok_or_else(|| corrupt("choice"))?;
        let vote = Vote { voter, choice, groups };
        let cast = CastVote { vote, reason, vote_time: stored_time(vote_time)?, plan_digest };
        votes.entry(request).or_default().push(cast);
    }
    for request in &mut requests {
        request.fields.votes = votes.remove(&request.uid).unwrap_or_default();
    }
    Ok(requests)
}
