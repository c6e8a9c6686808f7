//! Completing a claimed step: fenced, in one transaction with what follows from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use pavior_core::audit::AuditEvent;
use pavior_store::{Recorded, Tx};
use serde_json::Value;

use crate::domain::failure::{FailureCode, StepFailure};
use crate::domain::operation::OperationState;
use crate::error::{Error, Result};
use crate::store::Db;
use crate::store::operation::aggregate::Aggregate;
use crate::store::operation::claim::{Claim, ClaimParams, StepRef, take};
use crate::store::operation::effects;
use crate::store::secret::Sealed;

/// Why a step failed, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepError {
    /// The driver's code, or the engine's.
    pub code: FailureCode,
    /// For people, without secrets.
    pub message: String,
    /// What a program can read of it, by name.
    pub details: BTreeMap<String, String>,
}

impl StepError {
    /// An error that has no more to say.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: BTreeMap::new() }
    }

    /// As it is kept with the step.
    pub(crate) fn failure(&self) -> StepFailure {
        StepFailure { code: self.code, message: self.message.clone() }
    }
}

/// What a driver made, ready to be kept: secrets are references.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Applied {
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
pub struct RetryAfter {
    /// After so long.
    pub after_micros: i64,
    /// False when what it needs was away: the attempt was none.
    pub counts: bool,
}

/// How a held step ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Completion {
    /// It is made or changed as asked.
    Applied(Box<Applied>),
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
        again: Option<RetryAfter>,
    },
    /// Nobody knows. Looked at again.
    Lost {
        /// Why.
        error: StepError,
        /// When to look.
        again: RetryAfter,
    },
    /// The call had no effect: it may be made again.
    NoEffect,
    /// The undo has removed it.
    Removed,
    /// The undo has put the former state back.
    Restored(Box<Applied>),
    /// The undo failed. With `again` it is tried again then, as long as there is time.
    UndoFailed {
        /// Why.
        error: StepError,
        /// When to try again.
        again: Option<RetryAfter>,
    },
}

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

/// Between its acceptance, what its steps make and its end, an operation goes on without an event for each move.
pub(crate) fn progress<T>(value: T, events: Vec<AuditEvent>) -> Recorded<T> {
    match events.is_empty() {
        true => Recorded::upkeep(value, "how far an operation is"),
        // What a driver did is recorded even if nothing else is taken any more.
        false => Recorded::all(value, events).happened(),
    }
}
