//! Recovery: the claims of workers that did not report back.

use uuid::Uuid;

use crate::domain::failure::{FailureCode, StepFailure};
use crate::domain::operation::{OperationState, StepEvent, StepState};
use crate::store::entity::{operation, step};
use crate::store::operation::finish;
use crate::store::prelude::*;

impl Db {
    /// Operations with a claim whose lease has ended, or whose time is up.
    pub async fn lapsed_unscoped(&self, limit: u64) -> Result<Vec<Uuid>> {
        let now = self.time(self.store.read()).await?;
        let mut found: Vec<Uuid> = step::Entity::find()
            .select_only()
            .column(step::Column::Operation)
            .filter(step::Column::State.is_in(StepState::HELD))
            .filter(step::Column::LeaseUntil.lt(now))
            .distinct()
            .limit(limit)
            .into_tuple()
            .all(self.store.read())
            .await?;
        let late: Vec<Uuid> = operation::Entity::find()
            .select_only()
            .column(operation::Column::Id)
            .filter(operation::Column::State.is_in(OperationState::WORKABLE))
            .filter(operation::Column::Deadline.gt(0))
            .filter(operation::Column::Deadline.lt(now))
            .limit(limit)
            .into_tuple()
            .all(self.store.read())
            .await?;
        found.extend(late);
        Ok(found)
    }

    /// True where no other process can have the database open.
    pub fn exclusive(&self) -> bool {
        self.store.backend() == sea_orm::DbBackend::Sqlite
    }

    /// Ends every lease and every pause now.
    pub async fn end_leases_unscoped(&self) -> Result<u64> {
        self.upkeep("leases of a process that is gone", (), |_, tx, ()| {
            Box::pin(async move {
                // Pauses too: they were measured by a clock that may have been set since.
                step::Entity::update_many()
                    .col_expr(step::Column::NotBefore, 0_i64.into())
                    .filter(step::Column::NotBefore.gt(0))
                    .filter(step::Column::State.is_in(StepState::CLAIMABLE))
                    .exec(tx)
                    .await?;
                let done = step::Entity::update_many()
                    .col_expr(step::Column::LeaseUntil, 1_i64.into())
                    .filter(step::Column::LeaseUntil.gt(0))
                    .filter(step::Column::State.is_in(StepState::HELD))
                    .exec(tx)
                    .await?;
                Ok(done.rows_affected)
            })
        })
        .await
    }

    /// Frees the claims of an operation whose leases have ended: what they did is not known.
    pub async fn recover_unscoped(&self, id: Uuid) -> Result<usize> {
        self.change_operation_unscoped(id, |_, aggregate| {
            let now = aggregate.clock;
            finish::check_deadline(aggregate)?;
            let mut freed = 0;
            for index in 0..aggregate.steps.len() {
                let step = aggregate.at(index)?;
                let state = step.state;
                if state.held() && step.lease_until < now {
                    step.fence += 1;
                    step.remains |= state != StepState::Undoing;
                    step.not_before = now;
                    step.error = Some(Typed(StepFailure {
                        code: FailureCode::LeaseEnded,
                        message: "the worker did not report back".to_owned(),
                    }));
                    aggregate.step(index, StepEvent::Lose)?;
                    freed += 1;
                }
            }
            aggregate.settle()?;
            Ok(freed)
        })
        .await
    }
}
