//! What the service itself does to whole operations: recovery of lost claims, admission and refusal.

use pavior_store::{Recorded, TxFuture};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::{Value, json};
use uuid::Uuid;

use super::claim::{CLAIMABLE, HELD, progress};
use super::entity::{operation, step};
use super::journal::{Aggregate, step_state};
use super::{Db, db, finish};
use crate::domain::state::{OperationEvent, OperationState, StepEvent, StepState};
use crate::error::{Error, Result};

impl Db {
    /// Operations with a claim whose lease has ended, or whose time is up.
    pub async fn lapsed_unscoped(&self, limit: u64) -> Result<Vec<Uuid>> {
        let now = self.time(self.store.read()).await?;
        let mut found: Vec<Uuid> = step::Entity::find()
            .select_only()
            .column(step::Column::Operation)
            .filter(step::Column::State.is_in(HELD.map(StepState::as_str)))
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
            .filter(operation::Column::State.is_in(["QUEUED", "RUNNING", "COMPENSATING"]))
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

    /// Ends every lease and every pause now.
    pub async fn end_leases_unscoped(&self) -> Result<u64> {
        self.store
            .upkeep("leases of a process that is gone", |tx| {
                Box::pin(async move {
                    // Pauses too: they were measured by a clock that may have been set since.
                    step::Entity::update_many()
                        .col_expr(step::Column::NotBefore, 0_i64.into())
                        .filter(step::Column::NotBefore.gt(0))
                        .filter(step::Column::State.is_in(CLAIMABLE.map(StepState::as_str)))
                        .exec(tx)
                        .await
                        .map_err(db)?;
                    let done = step::Entity::update_many()
                        .col_expr(step::Column::LeaseUntil, 1_i64.into())
                        .filter(step::Column::LeaseUntil.gt(0))
                        .filter(step::Column::State.is_in(HELD.map(StepState::as_str)))
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
        self.change(id, |_, aggregate| {
            let now = aggregate.clock;
            finish::check_deadline(aggregate)?;
            let mut freed = 0;
            for index in 0..aggregate.steps.len() {
                let Some(step) = aggregate.steps.get_mut(index) else { break };
                let state = step_state(step)?;
                if state.held() && step.lease_until < now {
                    step.fence += 1;
                    step.remains |= state != StepState::Undoing;
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

    /// Remembers the approval that an operation waits for, or that was made for one that ended meanwhile.
    pub async fn await_approval_unscoped(&self, id: Uuid, approval: &str) -> Result<()> {
        let approval = approval.to_owned();
        self.change(id, move |_, aggregate| {
            if aggregate.op.approval.is_empty() {
                aggregate.op.approval = approval.clone();
            }
            if aggregate.state == OperationState::Checking {
                aggregate.operation(OperationEvent::RequireApproval)?;
            }
            Ok(())
        })
        .await
    }

    /// Lets an approved operation run.
    pub async fn admit_unscoped(&self, id: Uuid, approvals: &[String], deadline_micros: i64) -> Result<()> {
        let approvals = json!(approvals);
        let this = self.clone();
        self.store
            .change(&self.outbox, move |tx| {
                let (this, approvals) = (this.clone(), approvals.clone());
                Box::pin(async move {
                    let Some(mut aggregate) = Aggregate::load(&this, tx, id, false).await? else {
                        return Ok(Recorded::unchanged(()));
                    };
                    if !matches!(aggregate.state, OperationState::Checking | OperationState::AwaitingApproval)
                    {
                        return Ok(Recorded::unchanged(()));
                    }
                    aggregate.op.approvals = approvals;
                    aggregate.op.deadline = aggregate.clock.saturating_add(deadline_micros);
                    aggregate.operation(OperationEvent::Admit)?;
                    finish::mark_working(tx, &aggregate).await?;
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
    pub(super) async fn change<T, F>(&self, id: Uuid, change: F) -> Result<T>
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
                    let mut aggregate = Aggregate::load(&this, tx, id, false)
                        .await?
                        .ok_or(Error::NotFound { kind: "Operation", name: id.to_string() })?;
                    let value = change(&this, &mut aggregate)?;
                    let (_, events) = this.write(tx, &mut aggregate, Vec::new()).await?;
                    Ok(progress(value, events))
                })
            })
            .await
    }
}
