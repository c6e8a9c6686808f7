//! Claiming steps, each a transaction of its own. The limits of a worker, of an operation and of an organization hold
//! because they are counted where the steps are claimed.

use std::sync::Arc;

use pavior_store::outbox::{OutboxContext, has_room};
use sea_orm::FromQueryResult;
use serde_json::Value;
use uuid::Uuid;

use crate::domain::operation::{Operation, OperationEvent, OperationState, Step, StepEvent, StepState};
use crate::domain::plan::Artifact;
use crate::store::entity::{operation, step};
use crate::store::one_at_a_time;
use crate::store::operation::aggregate::Aggregate;
use crate::store::operation::write::progress;
use crate::store::operation::{effects, finish};
use crate::store::prelude::*;

/// Why a step was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To do it.
    Do,
    /// To find out what became of it.
    Observe,
    /// To undo it.
    Undo,
}

/// A step that this worker holds. The claim is committed: the intent stands before the effect.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Its operation.
    pub op: Arc<Operation>,
    /// The step.
    pub step: Step,
    /// Why it was taken.
    pub purpose: Purpose,
    /// What the run step that it takes its artifact from gave.
    pub run_outputs: Option<Value>,
    /// How long the operation, or its undo, may still take; `None` without a limit.
    pub left_micros: Option<i64>,
}

impl Claim {
    /// What a completion must match.
    pub fn reference(&self) -> StepRef {
        let Step { operation, id, fence, state, .. } = self.step;
        StepRef { operation, step: id, fence, state }
    }
}

/// A claim as a completion refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRef {
    /// The operation.
    pub operation: Uuid,
    /// The step.
    pub step: Uuid,
    /// The fence of the claim.
    pub fence: i64,
    /// The state of the claim.
    pub state: StepState,
}

/// Who takes, how many, for how long.
#[derive(Debug, Clone)]
pub struct ClaimParams {
    /// The worker.
    pub worker: Arc<str>,
    /// How long the claim lasts unless it is renewed.
    pub lease_micros: i64,
    /// At most so many now.
    pub limit: usize,
    /// At most so many held of one operation.
    pub per_operation: usize,
    /// At most so many held of one organization, by all workers.
    pub per_organization: usize,
    /// Drivers that are away: their steps wait.
    pub away: Arc<[String]>,
}

/// How many steps of an organization are in a state.
#[derive(Debug, FromQueryResult)]
struct Load {
    organization: String,
    state: StepState,
    steps: i64,
}

impl Db {
    /// Operations with something to do now, oldest first, one organization after the other and those first that have
    /// least under way, so that nobody waits for the hundreds of another; organizations at their limit are left out.
    pub async fn candidates_unscoped(
        &self,
        limit: u64,
        per_organization: i64,
        away: &[String],
    ) -> Result<Vec<Uuid>> {
        let now = self.time(self.store.read()).await?;
        let load: Vec<Load> = step::Entity::find()
            .select_only()
            .column(step::Column::Organization)
            .column(step::Column::State)
            .column_as(ColumnTrait::count(&step::Column::Id), "steps")
            .filter(step::Column::State.is_in(StepState::CLAIMABLE.into_iter().chain(StepState::HELD)))
            .group_by(step::Column::Organization)
            .group_by(step::Column::State)
            .into_model()
            .all(self.store.read())
            .await?;
        let is_held = |load: &&Load| load.state.held();
        let mut waiting: Vec<&str> =
            load.iter().filter(|load| !is_held(load)).map(|load| load.organization.as_str()).collect();
        waiting.sort_unstable();
        waiting.dedup();
        let mut queues = Vec::new();
        for organization in waiting {
            let own = load.iter().filter(is_held).filter(|load| load.organization == organization);
            let held: i64 = own.map(|load| load.steps).sum();
            // A hint only; how much room there is is counted where steps are taken.
            if let Ok(room @ 1..) = u64::try_from(per_organization.saturating_sub(held)) {
                queues
                    .push((held, self.candidates_of(organization, Ord::min(limit, room), now, away).await?));
            }
        }
        queues.sort_by_key(|(held, _)| *held);
        let queues: Vec<_> = queues.into_iter().map(|(_, queue)| queue).collect();
        let longest = queues.iter().map(Vec::len).max().unwrap_or_default();
        let fair =
            (0..longest).flat_map(|round| queues.iter().filter_map(move |queue| queue.get(round).copied()));
        Ok(fair.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect())
    }

    async fn candidates_of(
        &self,
        organization: &str,
        limit: u64,
        now: i64,
        away: &[String],
    ) -> Result<Vec<Uuid>> {
        let mut operations = operation::Entity::find()
            .select_only()
            .column(operation::Column::Id)
            .filter(operation::Column::Organization.eq(organization))
            .filter(operation::Column::State.is_in(OperationState::WORKABLE));
        Ok(step::Entity::find()
            .select_only()
            .column(step::Column::Operation)
            .filter(step::Column::Organization.eq(organization))
            .filter(step::Column::State.is_in(StepState::CLAIMABLE))
            .filter(step::Column::NotBefore.lte(now))
            .filter(step::Column::Driver.is_not_in(away.iter().map(String::as_str)))
            .filter(step::Column::Operation.in_subquery(QuerySelect::query(&mut operations).to_owned()))
            .distinct()
            .order_by_asc(step::Column::Operation)
            .limit(limit)
            .into_tuple()
            .all(self.store.read())
            .await?)
    }

    /// Takes steps of one operation; none when another worker is at it, or while the histories are not known to fit: what
    /// a database that was set back says is to be done may have been done already.
    pub async fn claim_unscoped(&self, id: Uuid, params: &ClaimParams) -> Result<Vec<Claim>> {
        if !self.history().fits() {
            return Ok(Vec::new());
        }
        self.change(params.clone(), move |this, tx, params| {
            Box::pin(async move {
                let Some(mut aggregate) = Aggregate::load(this, tx, id, true).await? else {
                    return Ok(Recorded::unchanged(Vec::new()));
                };
                finish::check_deadline(&mut aggregate)?;
                aggregate.settle()?;
                let claims = take(tx, &this.outbox, &mut aggregate, params, 0).await?;
                let (_, events) = this.write(tx, &mut aggregate, Vec::new()).await?;
                Ok(progress(claims, events))
            })
        })
        .await
    }
}

/// Takes what can be taken now and there is room for, also to record what comes of it. `freed` places of the organization became free in this
/// transaction and are left to others.
pub(crate) async fn take(
    tx: &Tx,
    outbox: &OutboxContext,
    aggregate: &mut Aggregate,
    params: &ClaimParams,
    freed: usize,
) -> Result<Vec<Claim>> {
    let wanted = claimable(aggregate, params);
    let held = aggregate.steps.iter().filter(|step| step.state.held()).count();
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
fn claimable(aggregate: &Aggregate, params: &ClaimParams) -> Vec<(usize, Purpose)> {
    let mut found = Vec::new();
    for (index, step) in aggregate.steps.iter().enumerate() {
        let purpose = match (aggregate.op.state, step.state) {
            (OperationState::Queued | OperationState::Running, StepState::Ready) => Purpose::Do,
            (OperationState::Queued | OperationState::Running, StepState::Unknown) => Purpose::Observe,
            (OperationState::Compensating, StepState::UndoReady) => Purpose::Undo,
            _ => continue,
        };
        if step.not_before <= aggregate.clock && !params.away.contains(&step.driver) {
            found.push((index, purpose));
        }
    }
    found
}

/// How many steps are held of other operations of the organization. Until the commit nobody else counts them.
async fn held_by_others(tx: &Tx, aggregate: &Aggregate) -> Result<usize> {
    let organization = &aggregate.op.organization;
    // Whoever counts beside us would see the same room and take it too.
    one_at_a_time(tx, "provisioning.room", organization).await?;
    let held = step::Entity::find()
        .filter(step::Column::State.is_in(StepState::HELD))
        .filter(step::Column::Organization.eq(organization.as_str()))
        .filter(step::Column::Operation.ne(aggregate.op.id))
        .count(tx)
        .await?;
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
    let (id, generation) = (aggregate.op.id, aggregate.op.generation);
    let step = aggregate.at(index)?;
    step.fence += 1;
    step.worker = params.worker.to_string();
    step.lease_until = now + params.lease_micros;
    match purpose {
        Purpose::Do => step.attempt += 1,
        Purpose::Undo => step.undo_attempt += 1,
        Purpose::Observe => {}
    }
    if step.idempotency_key.is_empty() {
        step.idempotency_key = format!("{id}/{}/{generation}", step.name);
    }
    if aggregate.op.state == OperationState::Queued {
        aggregate.operation(OperationEvent::Start)?;
    }
    aggregate.step(index, StepEvent::Claim)?;
    if purpose == Purpose::Do {
        effects::begin(tx, aggregate, index).await?;
    }
    Ok(())
}

fn claims(aggregate: &Aggregate, taken: Vec<(usize, Purpose)>) -> Vec<Claim> {
    let op = Arc::new(Operation::from(aggregate.op.clone()));
    let deadline = aggregate.op.deadline;
    let left_micros = (deadline > 0).then(|| deadline - aggregate.clock);
    taken
        .into_iter()
        .filter_map(|(index, purpose)| {
            let step = aggregate.steps.get(index)?.clone();
            let run_outputs = match &step.spec.0.artifact {
                Artifact::FromStep { step: source, .. } => aggregate
                    .steps
                    .iter()
                    .find(|step| step.name == *source)
                    .and_then(|step| step.outputs.clone()),
                Artifact::None | Artifact::Known(_) => None,
            };
            Some(Claim { op: op.clone(), step: Step::from(step), purpose, run_outputs, left_micros })
        })
        .collect()
}
