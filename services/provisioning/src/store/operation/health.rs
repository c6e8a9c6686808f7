//! Operations and steps that do not advance, for health.

use pavior_store::micros;
use sea_orm::sea_query::SelectStatement;

use crate::domain::operation::{OperationState, StepState};
use crate::store::entity::{operation, step};
use crate::store::prelude::*;

/// Something that waits, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What it is: an operation, or one of its steps, by name.
    pub what: String,
    /// In microseconds.
    pub micros: i64,
}

impl Waiting {
    fn operation(op: &operation::Model, micros: i64) -> Self {
        Self { what: format!("operation `{}`", op.name), micros }
    }
}

impl Db {
    /// The step that waits for a worker for the longest time, those of drivers that are away aside. With `limits` only
    /// where there is room for one more, of its operation and of its organization: there it waits for nothing else.
    pub async fn oldest_claimable_unscoped(
        &self,
        away: &[String],
        limits: Option<(i64, i64)>,
    ) -> Result<Option<Waiting>> {
        let now = self.time(self.store.read()).await?;
        let mut find = step::Entity::find()
            .find_also_related(operation::Entity)
            .filter(step::Column::State.is_in(StepState::CLAIMABLE))
            .filter(step::Column::NotBefore.lte(now))
            .filter(step::Column::Driver.is_not_in(away.iter().map(String::as_str)))
            .filter(operation::Column::State.is_in(OperationState::WORKABLE));
        if let Some((of_operation, of_organization)) = limits {
            find = find
                .filter(step::Column::Operation.not_in_subquery(full(step::Column::Operation, of_operation)))
                .filter(
                    step::Column::Organization
                        .not_in_subquery(full(step::Column::Organization, of_organization)),
                );
        }
        let found = find.order_by_asc(operation::Column::UpdateTime).limit(1).one(self.store.read()).await?;
        Ok(found.and_then(|(step, op)| {
            let op = op?;
            let since = Ord::max(step.not_before, micros(op.update_time));
            Some(Waiting { what: format!("step `{}` of `{}`", step.name, op.name), micros: now - since })
        }))
    }

    /// The operation that has not ended for the longest time, those that wait for people aside.
    pub async fn oldest_unfinished_unscoped(&self) -> Result<Option<Waiting>> {
        let now = self.time(self.store.read()).await?;
        let found = operation::Entity::find()
            .filter(operation::Column::State.is_in(OperationState::GOING_ON))
            .order_by_asc(operation::Column::CreateTime)
            .one(self.store.read())
            .await?;
        let since = |op: &operation::Model| micros(op.start_time.unwrap_or(op.create_time));
        Ok(found.map(|op| Waiting::operation(&op, now - since(&op))))
    }

    /// The operation whose time, or that of its undo, is over for the longest time, and that has not ended for all that.
    pub async fn latest_unscoped(&self) -> Result<Option<Waiting>> {
        let now = self.time(self.store.read()).await?;
        let found = operation::Entity::find()
            .filter(operation::Column::State.is_in(OperationState::GOING_ON))
            .filter(operation::Column::Deadline.gt(0))
            .filter(operation::Column::Deadline.lt(now))
            .order_by_asc(operation::Column::Deadline)
            .one(self.store.read())
            .await?;
        Ok(found.map(|op| Waiting::operation(&op, now - op.deadline)))
    }

    /// How many operations are stuck, and the one that has been so for the longest time.
    pub async fn stuck_unscoped(&self) -> Result<(u64, Option<Waiting>)> {
        let now = self.time(self.store.read()).await?;
        let stuck = || operation::Entity::find().filter(operation::Column::State.eq(OperationState::Stuck));
        let first = stuck().order_by_asc(operation::Column::UpdateTime).one(self.store.read()).await?;
        let Some(first) = first else { return Ok((0, None)) };
        let count = stuck().count(self.store.read()).await?;
        // Nothing is written to it while it is stuck.
        Ok((count, Some(Waiting::operation(&first, now - micros(first.update_time)))))
    }

    /// How many claims have ended and are not freed, and the one that ended first.
    pub async fn lapsed_claims_unscoped(&self) -> Result<(u64, Option<Waiting>)> {
        let now = self.time(self.store.read()).await?;
        let lapsed = || {
            step::Entity::find()
                .filter(step::Column::State.is_in(StepState::HELD))
                .filter(step::Column::LeaseUntil.lt(now))
        };
        let first = lapsed().order_by_asc(step::Column::LeaseUntil).one(self.store.read()).await?;
        let Some(first) = first else { return Ok((0, None)) };
        let count = lapsed().count(self.store.read()).await?;
        let what = format!("the claim on step `{}`", first.name);
        Ok((count, Some(Waiting { what, micros: now - first.lease_until })))
    }
}

/// What has as many steps under way as it may.
fn full(of: step::Column, limit: i64) -> SelectStatement {
    let mut held = step::Entity::find()
        .select_only()
        .column(of)
        .filter(step::Column::State.is_in(StepState::HELD))
        .group_by(of)
        .having(step::Column::Id.count().gte(limit));
    QuerySelect::query(&mut held).to_owned()
}
