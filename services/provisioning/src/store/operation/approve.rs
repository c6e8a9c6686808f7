//! The answer of people to an operation that waits for it.

use sea_orm::FromQueryResult;
use uuid::Uuid;

use crate::domain::failure::Failure;
use crate::domain::operation::{Operation, OperationEvent, OperationState};
use crate::store::entity::operation;
use crate::store::operation::aggregate::Aggregate;
use crate::store::operation::write::progress;
use crate::store::operation::{finish, hold};
use crate::store::prelude::*;

/// An operation that waits for people.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Waiter {
    /// Its id.
    pub id: Uuid,
    /// Its organization.
    pub organization: String,
    /// Whether people were asked.
    pub state: OperationState,
    /// The approval that it waits for; empty before people were asked.
    pub approval: String,
    /// Whether a reason is noted for which it does not go on.
    pub noted: bool,
}

impl Db {
    /// Operations that wait for people, oldest first. Only what cannot be unreadable: one damaged row is not to hold up
    /// all others.
    pub async fn waiting_unscoped(&self, limit: u64) -> Result<Vec<Waiter>> {
        Ok(operation::Entity::find()
            .select_only()
            .columns([
                operation::Column::Id,
                operation::Column::Organization,
                operation::Column::State,
                operation::Column::Approval,
            ])
            .column_as(operation::Column::Error.is_not_null(), "noted")
            .filter(operation::Column::State.is_in(OperationState::ASKING))
            .order_by_asc(operation::Column::CreateTime)
            .limit(limit)
            .into_model()
            .all(self.store.read())
            .await?)
    }

    /// Remembers the approval that an operation waits for, or that was made for one that ended meanwhile.
    pub async fn await_approval_unscoped(&self, id: Uuid, approval: &str) -> Result<()> {
        let approval = approval.to_owned();
        self.change_operation_unscoped(id, move |_, aggregate| {
            if aggregate.op.approval.is_empty() {
                aggregate.op.approval = approval.clone();
            }
            if aggregate.op.state == OperationState::Checking {
                aggregate.operation(OperationEvent::RequireApproval)?;
            }
            Ok(())
        })
        .await
    }

    /// Notes why an operation in this state, in which people are asked, does not go on, or that nothing but their answer is
    /// missing. Who looked at it in another state knows nothing of it as it is.
    pub async fn note_wait_unscoped(
        &self,
        id: Uuid,
        state: OperationState,
        waits: Option<Failure>,
    ) -> Result<()> {
        let asks = |op: &Operation| op.state == state && op.error != waits;
        if !self.operation_by_id_unscoped(id).await?.as_ref().is_some_and(asks) {
            return Ok(());
        }
        self.change_operation_unscoped(id, move |_, aggregate| {
            if aggregate.op.state == state {
                aggregate.op.error = waits.clone().map(Typed);
            }
            Ok(())
        })
        .await
    }

    /// Lets an approved operation run. Where another has what it needs, or has changed it, that is an error.
    pub async fn admit_unscoped(&self, id: Uuid, approvals: &[String], deadline_micros: i64) -> Result<()> {
        let approvals = Typed(approvals.to_vec());
        self.change(approvals, move |this, tx, approvals| {
            Box::pin(async move {
                let Some(mut aggregate) = Aggregate::load(this, tx, id, false).await? else {
                    return Ok(Recorded::unchanged(()));
                };
                if !OperationState::ASKING.contains(&aggregate.op.state) {
                    return Ok(Recorded::unchanged(()));
                }
                hold::take(this, tx, &mut aggregate).await?;
                aggregate.op.approvals = approvals.clone();
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
    pub async fn refuse_unscoped(&self, id: Uuid, failure: Failure) -> Result<()> {
        self.change_operation_unscoped(id, move |_, aggregate| {
            if OperationState::ASKING.contains(&aggregate.op.state) {
                aggregate.blame(failure.clone());
                aggregate.operation(OperationEvent::Deny)?;
            }
            Ok(())
        })
        .await
    }
}
