//! What a worker writes under the claim that it holds: the renewal of its lease, and what a driver resumes from.

use serde_json::Value;

use crate::domain::operation::OperationState;
use crate::store::entity::{operation, run, step};
use crate::store::operation::claim::StepRef;
use crate::store::prelude::*;
use crate::store::run::timed_steps;

impl Db {
    /// Renews a claim. False when it is lost; the second value tells that the operation wants the step to stop.
    pub async fn heartbeat_unscoped(&self, reference: StepRef, lease_micros: i64) -> Result<(bool, bool)> {
        self.upkeep("the lease of a step", (), move |this, tx, ()| {
            Box::pin(async move {
                let now = this.time(tx).await?;
                let done = step::Entity::update_many()
                    .col_expr(step::Column::LeaseUntil, (now + lease_micros).into())
                    .filter(step::Column::Id.eq(reference.step))
                    .filter(step::Column::Fence.eq(reference.fence))
                    .filter(step::Column::State.eq(reference.state))
                    .exec(tx)
                    .await?;
                let op = operation::Entity::find_by_id(reference.operation).one(tx).await?;
                let stop = op.is_some_and(|op| {
                    op.state == OperationState::Cancelling
                        || (op.state == OperationState::Failing && op.deadline < now)
                });
                Ok((done.rows_affected == 1, stop))
            })
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
        self.upkeep("where a driver resumes", (set, told), move |_, tx, (set, told)| {
            Box::pin(async move {
                let done = step::Entity::update_many()
                    .set(set.clone())
                    .filter(step::Column::Id.eq(reference.step))
                    .filter(step::Column::Fence.eq(reference.fence))
                    .exec(tx)
                    .await?;
                if let (1, Some(steps)) = (done.rows_affected, told) {
                    let subject = step::Entity::find_by_id(reference.step).select_only();
                    let subject = subject.column(step::Column::Subject).into_query();
                    run::Entity::update_many()
                        .set(run::ActiveModel { steps: Set(steps.clone()), ..Default::default() })
                        .filter(run::Column::Name.in_subquery(subject))
                        .exec(tx)
                        .await?;
                }
                Ok(done.rows_affected == 1)
            })
        })
        .await
    }
}
