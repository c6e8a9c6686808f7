//! An operation with its steps, changed as a whole: loaded under the operation's row lock, changed in memory by the
//! pure state machines, and written back with one fenced update for each changed step and one event for each change.

use sea_orm::sea_query::{LockBehavior, LockType};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::failure::{Failure, FailureCode};
use crate::domain::machine;
use crate::domain::machine::{Move, StepView};
use crate::domain::operation::{
    Operation, OperationEvent, OperationState, Step, StepEvent, StepProgress, StepState,
};
use crate::domain::plan::Kind;
use crate::store::entity::{event, operation, step};
use crate::store::operation::log::{OF_OPERATION, OF_STEP};
use crate::store::prelude::*;

/// An operation with its steps.
#[derive(Debug, Clone)]
pub struct OperationView {
    /// The operation.
    pub op: Operation,
    /// Its steps, in order.
    pub steps: Vec<Step>,
}

impl OperationView {
    /// Whether its undo has begun.
    pub fn undoes(&self) -> bool {
        self.steps.iter().any(|step| step.state.is_undo())
    }

    /// Whether nothing of it has happened, and all of it can still.
    pub fn untouched(&self) -> bool {
        let waits = |step: &Step| step.start_time.is_none() && step.state.waits();
        !self.op.cancel_requested && self.steps.iter().all(waits)
    }
}

/// An operation, its steps, and what has happened to them in this transaction.
#[derive(Debug)]
pub(crate) struct Aggregate {
    /// The operation.
    pub op: operation::Model,
    /// Its steps, in the plan's order.
    pub steps: Vec<step::Model>,
    /// The time by which leases, pauses and deadlines run.
    pub clock: i64,
    loaded_op: operation::Model,
    loaded_steps: Vec<step::Model>,
    events: Vec<(String, &'static str, Value)>,
    now: OffsetDateTime,
}

impl Aggregate {
    /// A new operation with its steps, not yet written.
    pub(crate) fn new(
        op: operation::Model,
        steps: Vec<step::Model>,
        now: OffsetDateTime,
        clock: i64,
    ) -> Self {
        let (loaded_op, loaded_steps) = (op.clone(), steps.clone());
        Self { loaded_op, loaded_steps, op, steps, clock, events: vec![], now }
    }

    /// Loads and locks; `None` when it does not exist, or with `skip_locked` when another worker holds it.
    pub(crate) async fn load(this: &Db, tx: &Tx, id: Uuid, skip_locked: bool) -> Result<Option<Self>> {
        let find = operation::Entity::find_by_id(id);
        let find = if skip_locked {
            find.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        } else {
            find.lock_exclusive()
        };
        let Some(op) = find.one(tx).await? else { return Ok(None) };
        let steps = step::Entity::find()
            .filter(step::Column::Operation.eq(id))
            .order_by_asc(step::Column::Ordinal)
            .all(tx)
            .await?;
        // Asked for under the lock: a time from before it may be long past.
        let clock = this.time(tx).await?;
        Ok(Some(Self::new(op, steps, this.now(), clock)))
    }

    /// Loads and locks one that must be there.
    pub(crate) async fn get(this: &Db, tx: &Tx, id: Uuid) -> Result<Self> {
        let missing = || Error::NotFound { kind: "Operation", name: id.to_string() };
        Self::load(this, tx, id, false).await?.ok_or_else(missing)
    }

    /// As it is now.
    pub(crate) fn view(&self) -> OperationView {
        let steps = self.steps.iter().cloned().map(Step::from).collect();
        OperationView { op: self.op.clone().into(), steps }
    }

    /// The position of a step by its id.
    pub(crate) fn position(&self, id: Uuid) -> Option<usize> {
        self.steps.iter().position(|step| step.id == id)
    }

    /// Whether a worker has ever taken one of its steps: from then on it may have had effects. Only a claim sets when a
    /// step began, and nothing takes it back.
    pub(crate) fn begun(&self) -> bool {
        self.steps.iter().any(|step| step.start_time.is_some())
    }

    /// Whether it is undone when it fails. Of what was under way when the database was set back nobody here knows what it
    /// had made by then, nor what has become of that: it goes forward, as a deletion does.
    pub(crate) fn reversible(&self) -> bool {
        // A run leaves nothing behind.
        self.op.kind.reversible() && (self.op.parked.is_none() || self.op.kind == Kind::Run)
    }

    /// Whether an operator who takes it up goes on with its work; else what is left of its undo is done.
    pub(crate) fn goes_forward(&self) -> bool {
        (!self.op.kind.reversible() || self.op.parked.is_some()) && !self.undoing()
    }

    /// Whether its undo has begun: from then on it does not go forward any more.
    fn undoing(&self) -> bool {
        self.steps.iter().any(|step| step.state.is_undo())
    }

    /// Whether what it works on is its own: from the beginning, or since it was let begin.
    pub(crate) fn holds(&self) -> bool {
        self.op.kind.holds_while_asked() || self.op.deadline > 0
    }

    /// Makes its claims from now on higher than all before it. Fences begin with the time at which an operation is accepted
    /// and grow by one with each claim, so that those of later operations, also ones that this database knows nothing of
    /// because it was set back, are lower than the time now.
    pub(crate) fn outrun(&mut self) {
        for step in &mut self.steps {
            step.fence = Ord::max(step.fence, self.clock);
        }
    }

    /// A step by its position.
    pub(crate) fn at(&mut self, index: usize) -> Result<&mut step::Model> {
        let corrupt = || Error::Corrupt(format!("operation `{}` has no step {index}", self.op.name));
        self.steps.get_mut(index).ok_or_else(corrupt)
    }

    /// Applies an event to a step.
    pub(crate) fn step(&mut self, index: usize, event: StepEvent) -> Result<()> {
        let now = self.now;
        let step = self.at(index)?;
        let after = step.state.next(event)?;
        step.state = after;
        match after {
            StepState::Running if step.start_time.is_none() => step.start_time = Some(now),
            StepState::Done
            | StepState::Failed
            | StepState::Undone
            | StepState::UndoStuck
            | StepState::Skipped => {
                step.end_time = Some(now);
            }
            StepState::Blocked | StepState::Ready | StepState::UndoReady => step.end_time = None,
            _ => {}
        }
        if event == StepEvent::Undo {
            // The pause was that of the work, and the undo does not wait for it.
            (step.not_before, step.waits) = (0, 0);
        }
        if !after.held() {
            step.worker = String::new();
            step.lease_until = 0;
        }
        let progress = StepProgress::from(Step::from(step.clone()));
        let body = serde_json::to_value(progress).map_err(|error| Error::Corrupt(error.to_string()))?;
        let name = step.name.clone();
        self.events.push((name, OF_STEP, body));
        Ok(())
    }

    /// Applies an event to the operation.
    pub(crate) fn operation(&mut self, event: OperationEvent) -> Result<()> {
        self.op.state = self.op.state.next(event)?;
        if matches!(event, OperationEvent::RequireApproval | OperationEvent::Admit) {
            // What it waited for has come.
            self.op.error = None;
        }
        if self.op.start_time.is_none() && self.op.state == OperationState::Running {
            self.op.start_time = Some(self.now);
        }
        self.op.end_time = self.op.state.done().then_some(self.now);
        if self.op.state == OperationState::Compensating {
            self.op.deadline = self.clock.saturating_add(self.op.undo_timeout);
        }
        self.events.push((String::new(), OF_OPERATION, json!({ "state": self.op.state.as_str() })));
        Ok(())
    }

    /// Remembers the first error, which is the one to blame: before it began there was none, only what it waited for.
    pub(crate) fn blame(&mut self, failure: Failure) {
        if self.op.error.is_none() || OperationState::ASKING.contains(&self.op.state) {
            self.op.error = Some(Typed(failure));
        }
    }

    /// Carries out everything that follows from the states of the steps.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let mut views = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let at = |name: &String| self.steps.iter().position(|other| &other.name == name);
            views.push(StepView {
                state: step.state,
                depends_on: step.depends_on.0.iter().filter_map(at).collect(),
                undoable: step.undoable,
                remains: step.remains,
                // Of what a restore has held up, nobody knows that nothing was touched.
                refused: is_refused(step) && (self.reversible() || !self.op.kind.reversible()),
            });
        }
        let mut state = self.op.state;
        let settled = machine::settle(&mut state, &mut views, self.reversible())?;
        for next in settled {
            match next {
                Move::Step(index, event) => self.step(index, event)?,
                Move::Operation(event) => self.operation(event)?,
            }
        }
        Ok(())
    }

    /// Whether its time, or that of its undo, is up.
    pub(crate) fn late(&self) -> bool {
        self.op.deadline > 0 && self.op.deadline <= self.clock
    }

    /// Whether the operation came to rest in this transaction, also one that had rested before and was taken up in it.
    pub(crate) fn just_rests(&self) -> bool {
        self.op.state.rests() && self.events.iter().any(|(_, kind, _)| *kind == OF_OPERATION)
    }

    /// Whether it is over while people are asked about it, or are about to be.
    pub(crate) fn unanswered(&self) -> bool {
        let over = matches!(self.op.state, OperationState::Denied | OperationState::Compensated);
        // Whom policy has asked may be lost with what came after the copy.
        let lost = self.op.parked.is_some() && self.op.deadline == 0;
        let about_to = lost || self.loaded_op.state == OperationState::Checking;
        let asked = about_to || !self.op.approval.is_empty();
        over && asked && self.op.approvals.0.is_empty()
    }

    /// Writes what has changed.
    pub(crate) async fn save(&mut self, tx: &Tx) -> Result<()> {
        for (step, before) in self.steps.iter().zip(&self.loaded_steps) {
            if step != before {
                save_step(tx, step, before).await?;
            }
        }
        self.save_events(tx).await?;
        if self.op != self.loaded_op {
            self.op.update_time = self.now;
            save_operation(tx, &self.op).await?;
        }
        self.loaded_op = self.op.clone();
        self.loaded_steps = self.steps.clone();
        Ok(())
    }

    async fn save_events(&mut self, tx: &Tx) -> Result<()> {
        let rows = self.event_rows();
        insert_events(tx, rows).await
    }

    fn event_rows(&mut self) -> Vec<event::ActiveModel> {
        let (operation, now) = (self.op.id, self.now);
        let mut seq = self.op.event_seq;
        let rows = self
            .events
            .drain(..)
            .map(|(step, kind, body)| {
                seq += 1;
                event::ActiveModel {
                    operation: Set(operation),
                    seq: Set(seq),
                    time: Set(now),
                    kind: Set(kind.to_owned()),
                    step: Set(step),
                    body: Set(body),
                }
            })
            .collect();
        self.op.event_seq = seq;
        rows
    }

    /// Inserts a new operation with everything that has happened to it so far.
    pub(crate) async fn insert(&mut self, tx: &Tx) -> Result<()> {
        let first = json!({ "state": self.op.state.as_str() });
        self.events.insert(0, (String::new(), OF_OPERATION, first));
        let events = self.event_rows();
        operation::Entity::insert(self.op.clone().into_active_model().reset_all())
            .exec_without_returning(tx)
            .await?;
        for chunk in self.steps.chunks(crate::store::ROWS_AT_ONCE) {
            let rows = chunk.iter().cloned().map(|step| step.into_active_model().reset_all());
            step::Entity::insert_many(rows).exec_without_returning(tx).await?;
        }
        insert_events(tx, events).await?;
        self.loaded_op = self.op.clone();
        self.loaded_steps = self.steps.clone();
        Ok(())
    }
}

async fn insert_events(tx: &Tx, rows: Vec<event::ActiveModel>) -> Result<()> {
    for chunk in rows.chunks(crate::store::ROWS_AT_ONCE) {
        event::Entity::insert_many(chunk.to_vec()).exec_without_returning(tx).await?;
    }
    Ok(())
}

async fn save_step(tx: &Tx, step: &step::Model, before: &step::Model) -> Result<()> {
    let set = step::ActiveModel {
        state: Set(step.state),
        remains: Set(step.remains),
        attempt: Set(step.attempt),
        undo_attempt: Set(step.undo_attempt),
        waits: Set(step.waits),
        fence: Set(step.fence),
        worker: Set(step.worker.clone()),
        lease_until: Set(step.lease_until),
        not_before: Set(step.not_before),
        idempotency_key: Set(step.idempotency_key.clone()),
        outputs: Set(step.outputs.clone()),
        error: Set(step.error.clone()),
        start_time: Set(step.start_time),
        end_time: Set(step.end_time),
        ..Default::default()
    };
    let done = step::Entity::update_many()
        .set(set)
        .filter(step::Column::Id.eq(step.id))
        .filter(step::Column::Fence.eq(before.fence))
        .filter(step::Column::State.eq(before.state))
        .exec(tx)
        .await?;
    if done.rows_affected == 0 {
        return Err(Error::Fenced { step: step.name.clone() });
    }
    Ok(())
}

async fn save_operation(tx: &Tx, op: &operation::Model) -> Result<()> {
    let set = operation::ActiveModel {
        state: Set(op.state),
        cancel_requested: Set(op.cancel_requested),
        parked: Set(op.parked),
        approval: Set(op.approval.clone()),
        approvals: Set(op.approvals.clone()),
        error: Set(op.error.clone()),
        gone: Set(op.gone.clone()),
        event_seq: Set(op.event_seq),
        generation: Set(op.generation),
        deadline: Set(op.deadline),
        canceller: Set(op.canceller.clone()),
        deleter: Set(op.deleter.clone()),
        delete_time: Set(op.delete_time),
        update_time: Set(op.update_time),
        start_time: Set(op.start_time),
        end_time: Set(op.end_time),
        ..Default::default()
    };
    operation::Entity::update_many().set(set).filter(operation::Column::Id.eq(op.id)).exec(tx).await?;
    Ok(())
}

/// Whether a driver refused at once to do a step, because something else stands in the way.
fn is_refused(step: &step::Model) -> bool {
    let code = step.error.as_ref().map(|error| error.0.code);
    step.attempt <= 1 && !step.remains && code == Some(FailureCode::Conflict)
}
