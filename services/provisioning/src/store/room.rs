//! Which steps may be taken, and how many: the limits of a worker, of an operation and of an organization hold because
//! they are counted where the steps are taken.

use std::sync::Arc;

use pavior_store::Tx;
use pavior_store::outbox::{OutboxContext, has_room};
use sea_orm::{ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, PaginatorTrait, QueryFilter, Statement};
use serde_json::Value;

use super::claim::{Claim, ClaimParams, HELD, Purpose};
use super::entity::step;
use super::journal::{Aggregate, step_state};
use super::{db, effects};
use crate::domain::state::{OperationEvent, OperationState, StepEvent, StepState};
use crate::error::Result;

/// Takes what can be taken now and there is room for, also to record what comes of it. `freed` places of the organization became free in this
/// transaction and are left to others.
pub(super) async fn take(
    tx: &Tx,
    outbox: &OutboxContext,
    aggregate: &mut Aggregate,
    params: &ClaimParams,
    freed: usize,
) -> Result<Vec<Claim>> {
    let wanted = claimable(aggregate, params)?;
    let mut held = 0;
    for step in &aggregate.steps {
        held += usize::from(step_state(step)?.held());
    }
    let mut room = params.limit.min(params.per_operation.saturating_sub(held)).min(wanted.len());
    if room > 0 {
        let others = held_by_others(tx, aggregate).await?;
        room = room.min(params.per_organization.saturating_sub(others + held + freed));
        if !has_room(tx, outbox, &aggregate.op.organization).await? {
            room = 0;
        }
    }
    let mut taken = Vec::new();
    for (index, purpose) in wanted.into_iter().take(room) {
        claim(tx, aggregate, index, purpose, params).await?;
        taken.push((index, purpose));
    }
    Ok(claims(aggregate, taken))
}

/// Steps that wait for nothing but a worker, in order.
fn claimable(aggregate: &Aggregate, params: &ClaimParams) -> Result<Vec<(usize, Purpose)>> {
    let mut found = Vec::new();
    for (index, step) in aggregate.steps.iter().enumerate() {
        let purpose = match (aggregate.state, step_state(step)?) {
            (OperationState::Queued | OperationState::Running, StepState::Ready) => Purpose::Do,
            (OperationState::Queued | OperationState::Running, StepState::Unknown) => Purpose::Observe,
            (OperationState::Compensating, StepState::UndoReady) => Purpose::Undo,
            _ => continue,
        };
        if step.not_before <= aggregate.clock && !params.away.contains(&step.driver) {
            found.push((index, purpose));
        }
    }
    Ok(found)
}

/// How many steps are held of other operations of the organization. Until the commit nobody else counts them.
async fn held_by_others(tx: &Tx, aggregate: &Aggregate) -> Result<usize> {
    let organization = &aggregate.op.organization;
    if tx.get_database_backend() == DbBackend::Postgres {
        // Whoever counts beside us would see the same room and take it too.
        let sql = "SELECT pg_advisory_xact_lock(hashtextextended('provisioning.room/' || $1, 0))";
        let values = [organization.as_str().into()];
        tx.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, values)).await.map_err(db)?;
    }
    let held = step::Entity::find()
        .filter(step::Column::State.is_in(HELD.map(StepState::as_str)))
        .filter(step::Column::Organization.eq(organization.as_str()))
        .filter(step::Column::Operation.ne(aggregate.op.id))
        .count(tx)
        .await
        .map_err(db)?;
    Ok(usize::try_from(held).unwrap_or(usize::MAX))
}

async fn claim(
    tx: &Tx,
    aggregate: &mut Aggregate,
    index: usize,
    purpose: Purpose,
    params: &ClaimParams,
) -> Result<()> {
    let now = aggregate.clock;
    let Some(step) = aggregate.steps.get_mut(index) else { return Ok(()) };
    step.fence += 1;
    step.worker = params.worker.to_string();
    step.lease_until = now + params.lease_micros;
    match purpose {
        Purpose::Do => step.attempt += 1,
        Purpose::Undo => step.undo_attempt += 1,
        Purpose::Observe => {}
    }
    if step.idempotency_key.is_empty() {
        step.idempotency_key = format!("{}/{}/{}", aggregate.op.id, step.name, aggregate.op.generation);
    }
    if aggregate.state == OperationState::Queued {
        aggregate.operation(OperationEvent::Start)?;
    }
    aggregate.step(index, StepEvent::Claim)?;
    if purpose == Purpose::Do {
        effects::begin(tx, aggregate, index).await?;
    }
    Ok(())
}

fn claims(aggregate: &Aggregate, taken: Vec<(usize, Purpose)>) -> Vec<Claim> {
    let op = Arc::new(aggregate.op.clone());
    let left_micros = (op.deadline > 0).then(|| op.deadline - aggregate.clock);
    taken
        .into_iter()
        .filter_map(|(index, purpose)| {
            let step = aggregate.steps.get(index)?.clone();
            let source =
                step.spec.get("artifact").and_then(|artifact| artifact.get("step")).and_then(Value::as_str);
            let run_outputs = source.and_then(|name| {
                aggregate.steps.iter().find(|step| step.name == name).and_then(|step| step.outputs.clone())
            });
            Some(Claim { op: op.clone(), step, purpose, run_outputs, left_micros })
        })
        .collect()
}
