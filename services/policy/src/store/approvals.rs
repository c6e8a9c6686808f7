//! Approval requests and their votes.

use std::collections::{BTreeMap, BTreeSet};

use pavior_auth::Permit;
use pavior_store::filter::FieldMap;
use pavior_store::{StoreError, micros};
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Select,
};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::entity::{approval_request as row, approval_vote as vote};
use super::resources::{ListError, Listing};
use super::tables::{corrupt, from_json, time_of, to_json};
use crate::domain::approval::{State, Vote};
use crate::domain::record::{ApprovalSpec, CastVote, Requirement, Stored};

/// A requirement as it is kept.
#[derive(Serialize, Deserialize)]
struct KeptRequirement {
    group: String,
    quorum: u32,
    policy_ids: Vec<String>,
    #[serde(default)]
    expiry_seconds: Option<i64>,
}

fn scoped(permit: &Permit) -> Select<row::Entity> {
    row::Entity::find().filter(row::Column::Organization.eq(permit.organization()))
}

/// The approval request of an id, with its votes.
pub(crate) async fn approval_by_id<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    id: &str,
) -> Result<Option<Stored<ApprovalSpec>>, StoreError> {
    let found = scoped(permit).filter(row::Column::Id.eq(id)).all(db).await?;
    Ok(with_votes(db, found).await?.pop())
}

/// The same, locked until the end of the transaction, so that two votes are counted one after the other.
pub(crate) async fn lock_approval<C: ConnectionTrait>(
    tx: &C,
    permit: &Permit,
    id: &str,
) -> Result<Option<Stored<ApprovalSpec>>, StoreError> {
    let found = scoped(permit).filter(row::Column::Id.eq(id)).lock_exclusive().all(tx).await?;
    Ok(with_votes(tx, found).await?.pop())
}

/// The approval request of an operation for one plan: there is at most one.
pub(crate) async fn approval_for_plan<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    operation: &str,
    plan_digest: &str,
) -> Result<Option<Stored<ApprovalSpec>>, StoreError> {
    let mine = scoped(permit).filter(row::Column::Operation.eq(operation));
    let found = mine.filter(row::Column::PlanDigest.eq(plan_digest)).all(db).await?;
    Ok(with_votes(db, found).await?.pop())
}

/// Those of several ids, by id.
pub(crate) async fn approvals_by_ids<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    ids: &BTreeSet<String>,
) -> Result<BTreeMap<String, Stored<ApprovalSpec>>, StoreError> {
    let found = scoped(permit).filter(row::Column::Id.is_in(ids.iter().cloned())).all(db).await?;
    Ok(with_votes(db, found).await?.into_iter().map(|stored| (stored.id.clone(), stored)).collect())
}

/// A page of approval requests.
pub(crate) async fn approvals_page<C: ConnectionTrait>(
    db: &C,
    backend: DbBackend,
    permit: &Permit,
    listing: &Listing,
    after: Option<&Json>,
    limit: u64,
) -> Result<Vec<Stored<ApprovalSpec>>, ListError> {
    use row::Column as C;
    let states = State::ALL.into_iter().flat_map(|state| {
        let name = state.as_str().to_owned();
        [(name.clone(), name.clone()), (format!("STATE_{name}"), name)]
    });
    let filter_fields = FieldMap::new(backend)
        .enumeration("state", C::State, states)
        .text("requester", C::Requester)
        .text("resource", C::Resource)
        .text("operation", C::Operation)
        .timestamp_micros("create_time", C::CreateTime);
    let order_fields =
        FieldMap::new(backend).text("name", C::Id).timestamp_micros("create_time", C::CreateTime);
    let (condition, keyset) = listing.compile(&filter_fields, &order_fields, C::Uid)?;
    let mut select = keyset.order(scoped(permit).filter(condition)).limit(limit);
    if let Some(after) = after {
        select = select.filter(keyset.after(after)?);
    }
    let found = select.all(db).await.map_err(StoreError::from)?;
    Ok(with_votes(db, found).await?)
}

/// Ids of the pending approval requests whose time is over, at most `limit`.
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

/// Adds an approval request, which has no votes yet.
pub(crate) async fn insert_approval<C: ConnectionTrait>(
    tx: &C,
    permit: &Permit,
    stored: &Stored<ApprovalSpec>,
) -> Result<(), StoreError> {
    let mut new = to_row(stored)?;
    new.organization = Set(permit.organization().to_owned());
    row::Entity::insert(new).exec_without_returning(tx).await?;
    Ok(())
}

/// Writes where an approval request stands over the revision before it. False when that is not the current one.
pub(crate) async fn update_approval<C: ConnectionTrait>(
    tx: &C,
    permit: &Permit,
    stored: &Stored<ApprovalSpec>,
) -> Result<bool, StoreError> {
    let change = row::ActiveModel {
        state: Set(stored.spec.state.as_str().to_owned()),
        end_reason: Set(stored.spec.end_reason.clone()),
        update_time: Set(micros(stored.update_time)),
        revision: Set(stored.revision),
        ..Default::default()
    };
    let result = row::Entity::update_many()
        .set(change)
        .filter(row::Column::Uid.eq(stored.uid))
        .filter(row::Column::Organization.eq(permit.organization()))
        .filter(row::Column::Revision.eq(stored.revision - 1))
        .exec(tx)
        .await?;
    Ok(result.rows_affected == 1)
}

/// Adds a vote. The approval request must have been read with the permit.
pub(crate) async fn insert_vote<C: ConnectionTrait>(
    tx: &C,
    _permit: &Permit,
    request: Uuid,
    cast: &CastVote,
) -> Result<(), StoreError> {
    let CastVote { vote: Vote { voter, approved, groups }, reason, vote_time, plan_digest } = cast.clone();
    let new = vote::ActiveModel {
        request: Set(request),
        voter: Set(voter),
        approved: Set(approved),
        reason: Set(reason),
        vote_time: Set(micros(vote_time)),
        plan_digest: Set(plan_digest),
        groups: Set(to_json(&groups)?),
    };
    vote::Entity::insert(new).exec_without_returning(tx).await?;
    Ok(())
}

async fn with_votes<C: ConnectionTrait>(
    db: &C,
    rows: Vec<row::Model>,
) -> Result<Vec<Stored<ApprovalSpec>>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let uids: Vec<Uuid> = rows.iter().map(|row| row.uid).collect();
    let cast = vote::Entity::find().filter(vote::Column::Request.is_in(uids));
    let cast = cast.order_by_asc(vote::Column::VoteTime).order_by_asc(vote::Column::Voter).all(db).await?;
    let mut votes = BTreeMap::<Uuid, Vec<CastVote>>::new();
    for row in cast {
        let vote::Model { request, voter, approved, reason, vote_time, plan_digest, groups } = row;
        let groups = from_json(&groups, "groups")?;
        let vote = Vote { voter, approved, groups };
        let cast = CastVote { vote, reason, vote_time: time_of(vote_time)?, plan_digest };
        votes.entry(request).or_default().push(cast);
    }
    rows.into_iter()
        .map(|row| {
            let votes = votes.remove(&row.uid).unwrap_or_default();
            from_row(row, votes)
        })
        .collect()
}

fn to_row(stored: &Stored<ApprovalSpec>) -> Result<row::ActiveModel, StoreError> {
    let Stored { uid, organization, id, revision, create_time, update_time, spec } = stored.clone();
    let ApprovalSpec {
        state,
        requester,
        on_behalf_of,
        action,
        resource,
        operation,
        plan,
        plan_digest,
        summary,
        requirements,
        decisions,
        votes: _,
        expire_time,
        end_reason,
    } = spec;
    let requirements: Vec<KeptRequirement> = requirements
        .into_iter()
        .map(|Requirement { group, quorum, policy_ids, expiry_seconds }| KeptRequirement {
            group,
            quorum,
            policy_ids,
            expiry_seconds,
        })
        .collect();
    Ok(row::ActiveModel {
        uid: Set(uid),
        organization: Set(organization),
        id: Set(id),
        revision: Set(revision),
        create_time: Set(micros(create_time)),
        update_time: Set(micros(update_time)),
        state: Set(state.as_str().to_owned()),
        requester: Set(requester),
        on_behalf_of: Set(on_behalf_of),
        action: Set(action),
        resource: Set(resource),
        operation: Set(operation),
        plan: Set(plan),
        plan_digest: Set(plan_digest),
        summary: Set(summary),
        requirements: Set(to_json(&requirements)?),
        decisions: Set(to_json(&decisions)?),
        expire_time: Set(micros(expire_time)),
        end_reason: Set(end_reason),
    })
}

fn from_row(row: row::Model, votes: Vec<CastVote>) -> Result<Stored<ApprovalSpec>, StoreError> {
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
        action,
        resource,
        operation,
        plan,
        plan_digest,
        summary,
        requirements,
        decisions,
        expire_time,
        end_reason,
    } = row;
    let requirements: Vec<KeptRequirement> = from_json(&requirements, "requirements")?;
    let requirements = requirements.into_iter().map(|kept| {
        let KeptRequirement { group, quorum, policy_ids, expiry_seconds } = kept;
        Requirement { group, quorum, policy_ids, expiry_seconds }
    });
    let spec = ApprovalSpec {
        state: State::parse(&state).ok_or_else(|| corrupt("state"))?,
        requester,
        on_behalf_of,
        action,
        resource,
        operation,
        plan,
        plan_digest,
        summary,
        requirements: requirements.collect(),
        decisions: from_json(&decisions, "decisions")?,
        votes,
        expire_time: time_of(expire_time)?,
        end_reason,
    };
    let (create_time, update_time) = (time_of(create_time)?, time_of(update_time)?);
    Ok(Stored { uid, organization, id, revision, create_time, update_time, spec })
}
