//! Completing a claimed step: fenced, in one transaction with what follows from it.

use std::sync::Arc;

use crate::domain::operation::OperationState;
use crate::store::operation::aggregate::Aggregate;
use crate::store::operation::claim::{Claim, ClaimParams, StepRef, take};
use crate::store::operation::completion::Completion;
use crate::store::operation::effects;
use crate::store::operation::write::progress;
use crate::store::prelude::*;

/// What followed from a completion.
#[derive(Debug, Clone)]
pub struct Completed {
    /// Steps of the same operation that the worker holds from now on.
    pub claims: Vec<Claim>,
    /// The state of the operation.
    pub state: OperationState,
    /// It ended with this.
    pub ended: bool,
}

impl Db {
    /// Gives a held step back and takes what follows from it, in one transaction.
    pub async fn complete_unscoped(
        &self,
        reference: StepRef,
        completion: &Arc<Completion>,
        next: Option<&ClaimParams>,
    ) -> Result<Completed> {
        let next = next.filter(|_| self.history().fits()).cloned();
        self.change((completion.clone(), next), move |this, tx, (completion, next)| {
            Box::pin(this.complete(tx, reference, completion, next.as_ref()))
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
        if step.fence != reference.fence || step.state != reference.state {
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
        Ok(progress(Completed { claims, state: aggregate.op.state, ended }, events))
    }
}
