//! Taking steps and giving them back: each a transaction of its own, fenced.

use std::collections::BTreeMap;
use std::sync::Arc;

use pavior_core::audit::AuditEvent;
use pavior_store::{Recorded, Tx, TxFuture};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::entity::{operation, run, step};
use super::journal::{Aggregate, step_state};
use super::room::take;
use super::told::timed_steps;
use super::{Db, db, effects, finish};
use crate::domain::plan::Action;
use crate::domain::state::{OperationState, StepState};
use crate::error::{Error, Result};

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
    pub op: Arc<operation::Model>,
    /// The step.
    pub step: step::Model,
    /// Why it was taken.
    pub purpose: Purpose,
    /// What the run step that it takes its artifact from gave.
    pub run_outputs: Option<Value>,
    /// How long the operation, or its undo, may still take; `None` without a limit.
    pub left_micros: Option<i64>,
}

impl Claim {
    /// What a completion must match.
    pub fn reference(&self) -> Result<StepRef> {
        let Self { step, .. } = self;
        Ok(StepRef { operation: step.operation, step: step.id, fence: step.fence, state: step_state(step)? })
    }

    /// What happens to the resource.
    pub fn action(&self) -> Result<Action> {
        action(&self.step)
    }
}

pub(crate) fn action(step: &step::Model) -> Result<Action> {
    Action::parse(&step.action).ok_or_else(|| Error::Corrupt(format!("step action `{}`", step.action)))
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

/// Why a step failed, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepError {
    /// The driver's code, or the engine's.
    pub code: String,
    /// For people, without secrets.
    pub message: String,
    /// What a program can read of it, by name.
    pub details: BTreeMap<String, String>,
}

impl StepError {
    /// An error that has no more to say.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), details: BTreeMap::new() }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({ "code": self.code, "message": self.message })
    }
}

/// A sealed value to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Under which it is found.
    pub reference: String,
    /// Nonce and ciphertext.
    pub bytes: Vec<u8>,
}

/// What a driver made, ready to be kept: secrets are references.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Made {
    /// The driver's name of it.
    pub identity: String,
    /// Inputs as they are recorded.
    pub inputs: Value,
    /// Outputs.
    pub outputs: Value,
    /// The driver's state.
    pub state: Value,
    /// New secrets.
    pub secrets: Vec<Sealed>,
    /// Under which the inputs are sealed, when they hold secrets; else empty.
    pub sealed_inputs: String,
    /// The artifact that it runs.
    pub artifact: Option<Value>,
}

/// What a run gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunResult {
    /// The commit.
    pub commit: String,
    /// Its `steps`, with `elapsed_ms` since it began.
    pub steps: Value,
    /// What it made.
    pub artifacts: Value,
}

/// When a step is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// After so long.
    pub after_micros: i64,
    /// False when what it needs was away: the attempt was none.
    pub counts: bool,
}

/// How a held step ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Completion {
    /// It is made or changed as asked.
    Made(Box<Made>),
    /// The run is through.
    Ran(RunResult),
    /// It is gone, as asked.
    Destroyed,
    /// It failed. With `again` it is tried again then; `remains` tells that something is left behind.
    Failed {
        /// Why.
        error: StepError,
        /// Something is left behind, with this identity when it is known.
        remains: Option<String>,
        /// When to try again.
        again: Option<Again>,
    },
    /// Nobody knows. Looked at again.
    Lost {
        /// Why.
        error: StepError,
        /// When to look.
        again: Again,
    },
    /// The call had no effect: it may be made again.
    NoEffect,
    /// The undo has removed it.
    Removed,
    /// The undo has put the former state back.
    Restored(Box<Made>),
    /// The undo failed. With `again` it is tried again then, as long as there is time.
    UndoFailed {
        /// Why.
        error: StepError,
        /// When to try again.
        again: Option<Again>,
    },
}

/// What followed from a completion.
#[derive(Debug, Clone)]
pub struct Completed {
    /// Steps of the same operation that the worker holds from now on.
    pub claims: Vec<Claim>,
    /// Where the operation stands.
    pub state: OperationState,
    /// It ended with this.
    pub ended: bool,
}

/// States in which a step can be taken.
pub(crate) const CLAIMABLE: [StepState; 3] = [StepState::Ready, StepState::Unknown, StepState::UndoReady];
/// States in which a worker has it.
pub(crate) const HELD: [StepState; 3] = [StepState::Running, StepState::Observing, StepState::Undoing];

/// How many steps of an organization are in a state.
#[derive(Debug, FromQueryResult)]
struct Load {
    organization: String,
    state: String,
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
            .column_as(step::Column::Id.count(), "steps")
            .filter(step::Column::State.is_in(CLAIMABLE.iter().chain(&HELD).map(|state| state.as_str())))
            .group_by(step::Column::Organization)
            .group_by(step::Column::State)
            .into_model()
            .all(self.store.read())
            .await
            .map_err(db)?;
        let is_held = |load: &&Load| HELD.iter().any(|state| state.as_str() == load.state);
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
                queues.push((held, self.candidates_of(organization, limit.min(room), now, away).await?));
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
        let workable = [OperationState::Queued, OperationState::Running, OperationState::Compensating];
        let mut operations = operation::Entity::find()
            .select_only()
            .column(operation::Column::Id)
            .filter(operation::Column::Organization.eq(organization))
            .filter(operation::Column::State.is_in(workable.map(OperationState::as_str)));
        step::Entity::find()
            .select_only()
            .column(step::Column::Operation)
            .filter(step::Column::Organization.eq(organization))
            .filter(step::Column::State.is_in(CLAIMABLE.map(StepState::as_str)))
            .filter(step::Column::NotBefore.lte(now))
            .filter(step::Column::Driver.is_not_in(away.iter().map(String::as_str)))
            .filter(step::Column::Operation.in_subquery(QuerySelect::query(&mut operations).to_owned()))
            .distinct()
            .order_by_asc(step::Column::Operation)
            .limit(limit)
            .into_tuple()
            .all(self.store.read())
            .await
            .map_err(db)
    }

    /// Takes steps of one operation; none when another worker is at it, or while the histories are not known to fit: what
    /// a database that was set back says is to be done may have been done already.
    pub async fn claim_unscoped(&self, id: Uuid, params: &ClaimParams) -> Result<Vec<Claim>> {
        if !self.history().fits() {
            return Ok(Vec::new());
        }
        let (this, params) = (self.clone(), params.clone());
        self.store
            .change(&self.outbox, move |tx| {
                let (this, params) = (this.clone(), params.clone());
                Box::pin(async move {
                    let Some(mut aggregate) = Aggregate::load(&this, tx, id, true).await? else {
                        return Ok(Recorded::unchanged(Vec::new()));
                    };
                    finish::check_deadline(&mut aggregate)?;
                    aggregate.settle()?;
                    let claims = take(tx, &this.outbox, &mut aggregate, &params, 0).await?;
                    let (_, events) = this.write(tx, &mut aggregate, Vec::new()).await?;
                    Ok(progress(claims, events))
                })
            })
            .await
    }

    /// Gives a held step back and takes what follows from it, in one transaction.
    pub async fn complete_unscoped(
        &self,
        reference: StepRef,
        completion: &Arc<Completion>,
        next: Option<&ClaimParams>,
    ) -> Result<Completed> {
        let next = next.filter(|_| self.history().fits()).cloned();
        let (this, completion) = (self.clone(), completion.clone());
        self.store
            .change(&self.outbox, move |tx| {
                let (this, completion, next) = (this.clone(), completion.clone(), next.clone());
                Box::pin(async move { this.complete(tx, reference, &completion, next.as_ref()).await })
            })
            .await
    }

    async fn complete(
        &self,
        tx: &Tx,
        reference: StepRef,
        completion: &Completion,
        next: Option<&ClaimParams>,
    ) -> Result<Recorded<Completed>> {
        let lost = || Error::Fenced { step: reference.step.to_string() };
        let mut aggregate = Aggregate::load(self, tx, reference.operation, false).await?.ok_or_else(lost)?;
        let index = aggregate.position(reference.step).ok_or_else(lost)?;
        let step = aggregate.steps.get(index).ok_or_else(lost)?;
        if step.fence != reference.fence || step_state(step)? != reference.state {
            return Err(Error::Fenced { step: step.name.clone() });
        }
        let name = step.name.clone();
        let audits = effects::complete(self, tx, &mut aggregate, index, completion).await?;
        aggregate.settle()?;
        let claims = match next {
            // The place that it frees belongs to whoever comes next, and is given away by the next look for work.
            Some(params) => take(tx, &self.outbox, &mut aggregate, params, 1).await?,
            None => Vec::new(),
        };
        let (ended, events) = self.write(tx, &mut aggregate, audits).await?;
        if self.before_commit.as_ref().is_some_and(|hook| (hook.0)(&name)) {
            return Err(Error::Died("before_commit"));
        }
        Ok(progress(Completed { claims, state: aggregate.state, ended }, events))
    }

    /// Writes an operation back and does what coming to rest asks for. Answers whether it came to rest, and the audit
    /// events.
    pub(crate) async fn write(
        &self,
        tx: &Tx,
        aggregate: &mut Aggregate,
        mut audits: Vec<AuditEvent>,
    ) -> Result<(bool, Vec<AuditEvent>)> {
        let rests = aggregate.just_rests();
        if rests {
            audits.extend(finish::finish(self, tx, aggregate).await?);
        }
        aggregate.save(tx).await?;
        Ok((rests, audits))
    }

    /// Renews a claim. False when it is lost; the second value tells that the operation wants the step to stop.
    pub async fn heartbeat_unscoped(&self, reference: StepRef, lease_micros: i64) -> Result<(bool, bool)> {
        let this = self.clone();
        self.store
            .upkeep("the lease of a step", move |tx| {
                let this = this.clone();
                Box::pin(async move {
                    let now = this.time(tx).await?;
                    let done = step::Entity::update_many()
                        .col_expr(step::Column::LeaseUntil, (now + lease_micros).into())
                        .filter(step::Column::Id.eq(reference.step))
                        .filter(step::Column::Fence.eq(reference.fence))
                        .filter(step::Column::State.eq(reference.state.as_str()))
                        .exec(tx)
                        .await
                        .map_err(db)?;
                    let op = operation::Entity::find_by_id(reference.operation).one(tx).await.map_err(db)?;
                    let stop = op.is_some_and(|op| {
                        op.state == OperationState::Cancelling.as_str()
                            || (op.state == OperationState::Failing.as_str() && op.deadline < now)
                    });
                    Ok((done.rows_affected == 1, stop))
                }) as TxFuture<'_, _, Error>
            })
            .await
    }

    /// Keeps what a driver wants to resume from, if the claim still holds.
    pub async fn checkpoint_unscoped(&self, reference: StepRef, checkpoint: Value) -> Result<bool> {
        let told = timed_steps(&checkpoint, self.now());
        let checkpoint = Set(Some(checkpoint));
        self.reached(reference, step::ActiveModel { checkpoint, ..Default::default() }, told).await
    }

    /// Keeps that the thing is gone which a replacement takes the place of, if the claim still holds. What a driver noted
    /// while it took that down says nothing about what comes next.
    pub async fn former_gone_unscoped(&self, reference: StepRef) -> Result<bool> {
        let (former_gone, checkpoint) = (Set(true), Set(None));
        self.reached(reference, step::ActiveModel { former_gone, checkpoint, ..Default::default() }, None)
            .await
    }

    /// Keeps how far a held step has come, and the run with it that it is.
    async fn reached(&self, reference: StepRef, set: step::ActiveModel, told: Option<Value>) -> Result<bool> {
        self.store
            .upkeep("where a driver resumes", move |tx| {
                let (set, told) = (set.clone(), told.clone());
                Box::pin(async move {
                    let done = step::Entity::update_many()
                        .set(set)
                        .filter(step::Column::Id.eq(reference.step))
                        .filter(step::Column::Fence.eq(reference.fence))
                        .exec(tx)
                        .await
                        .map_err(db)?;
                    if let (1, Some(steps)) = (done.rows_affected, told) {
                        let subject = step::Entity::find_by_id(reference.step).select_only();
                        let subject = subject.column(step::Column::Subject).into_query();
                        run::Entity::update_many()
                            .set(run::ActiveModel { steps: Set(steps), ..Default::default() })
                            .filter(run::Column::Name.in_subquery(subject))
                            .exec(tx)
                            .await
                            .map_err(db)?;
                    }
                    Ok(done.rows_affected == 1)
                }) as TxFuture<'_, _, Error>
            })
            .await
    }
}

/// Between its acceptance, what its steps make and its end, an operation goes on without an event for each move.
pub(crate) fn progress<T>(value: T, events: Vec<AuditEvent>) -> Recorded<T> {
    match events.is_empty() {
        true => Recorded::upkeep(value, "how far an operation is"),
        // What a driver did is recorded even if nothing else is taken any more.
        false => Recorded::all(value, events).happened(),
    }
}
