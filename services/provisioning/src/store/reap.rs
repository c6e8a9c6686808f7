//! Verbs on whole operations: recovery of lost claims, cancel, retry, admission and refusal.

use pavior_store::{Recorded, TxFuture, idempotency};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::{Value, json};
use uuid::Uuid;

use super::claim::progress;
use super::entity::{operation, step};
use super::journal::{Aggregate, step_state};
use super::{Db, db, finish};
use crate::domain::state::{OperationEvent, OperationState, StepEvent, StepState};
use crate::error::{Error, Result};

impl Db {
    /// Operations with a claim whose lease has ended, or whose time is up.
    pub async fn lapsed_unscoped(&self, limit: u64) -> Result<Vec<Uuid>> {
        let held = [StepState::Running, StepState::Observing, StepState::Undoing].map(StepState::as_str);
        let now = self.now_micros();
        let mut found: Vec<Uuid> = step::Entity::find()
            .select_only()
            .column(step::Column::Operation)
            .filter(step::Column::State.is_in(held))
            .filter(step::Column::LeaseUntil.lt(now))
            .distinct()
            .limit(limit)
            .into_tuple()
            .all(self.store.read())
            .await
            .map_err(db)?;
        let late: Vec<Uuid> = operation::Entity::find()
            .select_only()
            .column(operation::Column::Id)
            .filter(operation::Column::State.is_in(["QUEUED", "RUNNING"]))
            .filter(operation::Column::Deadline.gt(0))
            .filter(operation::Column::Deadline.lt(now))
            .limit(limit)
            .into_tuple()
            .all(self.store.read())
            .await
            .map_err(db)?;
        found.extend(late);
        Ok(found)
    }

    /// True where no other process can have the database open.
    pub fn exclusive(&self) -> bool {
        self.store.backend() == sea_orm::DbBackend::Sqlite
    }

    /// Ends every lease now.
    pub async fn end_leases_unscoped(&self) -> Result<u64> {
        self.store
            .upkeep("leases of a process that is gone", |tx| {
                Box::pin(async move {
                    let done = step::Entity::update_many()
                        .col_expr(step::Column::LeaseUntil, 1_i64.into())
                        .filter(step::Column::LeaseUntil.gt(0))
                        .exec(tx)
                        .await
                        .map_err(db)?;
                    Ok(done.rows_affected)
                }) as TxFuture<'_, _, Error>
            })
            .await
    }

    /// Frees the claims of an operation whose leases have ended: what they did is not known.
    pub async fn recover_unscoped(&self, id: Uuid) -> Result<usize> {
        self.change(id, |this, aggregate| {
            let now = this.now_micros();
            finish::check_deadline(aggregate, now)?;
            let mut freed = 0;
            for index in 0..aggregate.steps.len() {
                let Some(step) = aggregate.steps.get_mut(index) else { break };
                if step_state(step)?.held() && step.lease_until < now {
                    step.fence += 1;
                    step.not_before = now;
                    step.error =
                        Some(json!({ "code": "LEASE_ENDED", "message": "the worker did not report back" }));
                    aggregate.step(index, StepEvent::Lose)?;
                    freed += 1;
                }
            }
            aggregate.settle()?;
            Ok(freed)
        })
        .await
    }

    /// Asks an operation to stop. One that has ended stays as it is.
    pub async fn cancel_unscoped(&self, id: Uuid, by: &str) -> Result<OperationState> {
        let by = by.to_owned();
        self.change(id, move |_, aggregate| {
            if aggregate.state.ended() || aggregate.op.cancel_requested {
                return Ok(aggregate.state);
            }
            aggregate.op.cancel_requested = true;
            if aggregate.state.next(OperationEvent::Cancel).is_ok() {
                let message = format!("cancelled by `{by}`");
                aggregate.blame(
                    json!({ "reason": "CANCELLED", "step": "", "code": "CANCELLED", "message": message }),
                );
                aggregate.operation(OperationEvent::Cancel)?;
                aggregate.settle()?;
            }
            Ok(aggregate.state)
        })
        .await
    }

    /// Takes up a stuck operation; the same request again changes nothing.
    pub async fn retry_unscoped(
        &self,
        id: Uuid,
        deadline_micros: i64,
        key: Option<(idempotency::Key, Vec<u8>)>,
    ) -> Result<()> {
        let deadline = self.now_micros() + deadline_micros;
        let this = self.clone();
        self.store
            .change(&self.outbox, move |tx| {
                let (this, key) = (this.clone(), key.clone());
                Box::pin(async move {
                    // Locked before the request id is looked up, so that of two equal calls the later finds the answer.
                    let mut aggregate = Aggregate::load(tx, id, false, this.now())
                        .await?
                        .ok_or(Error::NotFound { kind: "operation", name: id.to_string() })?;
                    if let Some((key, hash)) = &key
                        && idempotency::check(tx, key, hash).await?.is_some()
                    {
                        return Ok(Recorded::unchanged(()));
                    }
                    let kind = aggregate.kind()?;
                    let (event, from) = if kind.reversible() {
                        (OperationEvent::RetryUndo, StepState::UndoStuck)
                    } else {
                        (OperationEvent::RetryDo, StepState::Failed)
                    };
                    aggregate.operation(event)?;
                    aggregate.op.deadline = deadline;
                    if !kind.reversible() {
                        aggregate.op.error = None;
                        aggregate.op.cancel_requested = false;
                    }
                    for index in 0..aggregate.steps.len() {
                        let Some(step) = aggregate.steps.get_mut(index) else { break };
                        if step_state(step)? == from {
                            (step.attempt, step.undo_attempt, step.not_before) = (0, 0, this.now_micros());
                            aggregate.step(index, StepEvent::Resume)?;
                        }
                    }
                    finish::mark(tx, &aggregate, finish::working_state(kind)).await?;
                    aggregate.settle()?;
                    let (_, events) = this.write(tx, &mut aggregate, Vec::new()).await?;
                    Ok(progress((), events).answering(this.kept(key.as_ref(), id)))
                })
            })
            .await
    }

    /// Remembers the approval request that an operation waits for.
    pub async fn await_approval_unscoped(&self, id: Uuid, approval_request: &str) -> Result<()> {
        let approval_request = approval_request.to_owned();
        self.change(id, move |_, aggregate| {
            if aggregate.state == OperationState::Checking {
                aggregate.op.approval_request = approval_request.clone();
                aggregate.operation(OperationEvent::RequireApproval)?;
            }
            Ok(())
        })
        .await
    }

    /// Lets an approved operation run.
    pub async fn admit_unscoped(&self, id: Uuid, approvals: &[String], deadline_micros: i64) -> Result<()> {
        let (approvals, deadline) = (json!(approvals), self.now_micros() + deadline_micros);
        let this = self.clone();
        self.store
            .change(&self.outbox, move |tx| {
                let (this, approvals) = (this.clone(), approvals.clone());
                Box::pin(async move {
                    let Some(mut aggregate) = Aggregate::load(tx, id, false, this.now()).await? else {
                        return Ok(Recorded::unchanged(()));
                    };
                    if !matches!(aggregate.state, OperationState::Checking | OperationState::AwaitingApproval)
                    {
                        return Ok(Recorded::unchanged(()));
                    }
                    aggregate.op.approvals = approvals;
                    aggregate.op.deadline = deadline;
                    aggregate.operation(OperationEvent::Admit)?;
                    finish::mark(tx, &aggregate, finish::working_state(aggregate.kind()?)).await?;
                    aggregate.settle()?;
                    let (_, events) = this.write(tx, &mut aggregate, Vec::new()).await?;
                    Ok(progress((), events))
                })
            })
            .await
    }

    /// Ends an operation that may not run.
    pub async fn refuse_unscoped(&self, id: Uuid, error: Value) -> Result<()> {
        self.change(id, move |_, aggregate| {
            if matches!(aggregate.state, OperationState::Checking | OperationState::AwaitingApproval) {
                aggregate.blame(error.clone());
                aggregate.operation(OperationEvent::Deny)?;
            }
            Ok(())
        })
        .await
    }

    /// Operations that wait for people, oldest first.
    pub async fn waiting_unscoped(&self, limit: u64) -> Result<Vec<operation::Model>> {
        operation::Entity::find()
            .filter(operation::Column::State.is_in(["CHECKING", "AWAITING_APPROVAL"]))
            .order_by_asc(operation::Column::CreateTime)
            .limit(limit)
            .all(self.store.read())
            .await
            .map_err(db)
    }

    /// Changes an operation in a transaction of its own; `change` may run several times.
    async fn change<T, F>(&self, id: Uuid, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Db, &mut Aggregate) -> Result<T> + Send + Sync + 'static,
    {
        let change = std::sync::Arc::new(change);
        let this = self.clone();
        self.store
            .change(&self.outbox, move |tx| {
                let (this, change) = (this.clone(), change.clone());
                Box::pin(async move {
                    let mut aggregate = Aggregate::load(tx, id, false, this.now())
                        .await?
                        .ok_or(Error::NotFound { kind: "operation", name: id.to_string() })?;
                    let value = change(&this, &mut aggregate)?;
                    let (_, events) = this.write(tx, &mut aggregate, Vec::new()).await?;
                    Ok(progress(value, events))
                })
            })
            .await
    }
}
