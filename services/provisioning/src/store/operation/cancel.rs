//! Cancelling an operation.

use uuid::Uuid;

use crate::domain::failure::{Failure, FailureCode, FailureReason};
use crate::domain::operation::{OperationEvent, OperationState, StepEvent};
use crate::domain::plan::Kind;
use crate::store::audit::{Caller, verb_event};
use crate::store::operation::aggregate::Aggregate;
use crate::store::prelude::*;

impl Db {
    /// Asks an operation to stop. One that is done, or is asked already, stays as it is; a deletion that has begun goes
    /// on, and one that is stuck waits for an operator: of both the caller is told. Given
    /// up when it is stuck is only the removal of an orphan, on which nothing depends, and what was under way when the
    /// database was set back: of that nobody knows here what there is to finish.
    pub async fn cancel_unscoped(&self, id: Uuid, caller: &Caller) -> Result<OperationState> {
        self.change(caller.clone(), move |this, tx, caller| {
            Box::pin(async move {
                let mut aggregate = Aggregate::get(this, tx, id).await?;
                if aggregate.op.state == OperationState::Stuck {
                    if aggregate.op.kind != Kind::DeleteOrphan && aggregate.op.parked.is_none() {
                        return Err(Error::Stuck { operation: aggregate.op.name });
                    }
                    let before = aggregate.op.clone();
                    give_up(&mut aggregate, caller)?;
                    let event = verb_event(this, caller, &before, &aggregate.op, "given up");
                    let (_, events) = this.write(tx, &mut aggregate, vec![event]).await?;
                    return Ok(Recorded::all(aggregate.op.state, events));
                }
                if aggregate.op.state.done() || aggregate.op.cancel_requested {
                    return Ok(Recorded::unchanged(aggregate.op.state));
                }
                if !aggregate.op.kind.reversible() && aggregate.begun() {
                    return Err(Error::Begun { operation: aggregate.op.name });
                }
                let before = aggregate.op.clone();
                aggregate.op.cancel_requested = true;
                caller.name().clone_into(&mut aggregate.op.canceller);
                if aggregate.op.state.next(OperationEvent::Cancel).is_ok() {
                    let mut message = format!("cancelled by `{}`", caller.name());
                    if !aggregate.reversible() && aggregate.op.kind.reversible() {
                        message.push_str(
                            ": a restore had held it up, so nothing of it is undone; cancel gives it up",
                        );
                    }
                    let failure = Failure::new(FailureReason::Cancelled, FailureCode::Cancelled, message);
                    aggregate.blame(failure);
                    aggregate.operation(OperationEvent::Cancel)?;
                    aggregate.settle()?;
                }
                let event = verb_event(this, caller, &before, &aggregate.op, "cancelled");
                let (_, events) = this.write(tx, &mut aggregate, vec![event]).await?;
                Ok(Recorded::all(aggregate.op.state, events))
            })
        })
        .await
    }
}

/// Nothing more is tried, and its end forgets what was recorded.
fn give_up(aggregate: &mut Aggregate, caller: &Caller) -> Result<()> {
    for index in 0..aggregate.steps.len() {
        let state = aggregate.at(index)?.state;
        for event in [StepEvent::Skip, StepEvent::UndoFail] {
            if state.next(event).is_ok() {
                aggregate.step(index, event)?;
            }
        }
    }
    aggregate.op.cancel_requested = true;
    caller.name().clone_into(&mut aggregate.op.canceller);
    let left = match aggregate.op.kind {
        Kind::DeleteOrphan => "what was to be removed may still be there",
        _ => "what drivers have of it stays as it is, and may differ from what is recorded",
    };
    let message = format!("given up by `{}`: {left}", caller.name());
    let failure = Failure::new(FailureReason::Cancelled, FailureCode::Cancelled, message);
    aggregate.op.error = Some(Typed(failure));
    aggregate.operation(OperationEvent::GiveUp)
}
