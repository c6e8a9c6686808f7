//! Undo: what was made is removed, what was changed gets its former inputs back.

use pavior_driver::{DestroyRequest, Lookup, Outcome, Prior};
use serde_json::Value;

use super::Engine;
use super::call::Called;
use super::inputs::Inputs;
use super::outcome::{Retry, mistake};
use super::work::{Ended, Work};
use crate::domain::operation::Prior as Former;
use crate::domain::plan::Action;
use crate::error::Result;
use crate::store::{Applied, Completion};

/// What the step made, and the driver's state of it: by the driver's name of it where that is known, else by the key
/// that it was asked for with. A call that broke off left at most a checkpoint.
fn made_by(work: &Work<'_>) -> (Lookup, Value) {
    let (row, step) = (&work.prepared.row, &work.claim.step);
    // The row tells of what stood before until the step is done.
    let recorded = row.generation > step.prior.as_ref().map_or(-1, |prior| prior.generation);
    let before = step.prior.as_ref().map_or("", |prior| prior.identity.as_str());
    let lookup = match row.identity.as_str() {
        identity if !identity.is_empty() && (recorded || identity != before) => {
            Lookup::Identity(identity.to_owned())
        }
        _ => Lookup::Key(step.idempotency_key.clone()),
    };
    let state = match &row.driver_state {
        state if recorded && !state.is_null() => state.clone(),
        _ => step.checkpoint.clone().unwrap_or_default(),
    };
    (lookup, state)
}

impl Engine {
    /// Undoes one step. Every call may be repeated.
    pub(crate) async fn undo(&self, work: &Work<'_>) -> Result<Ended> {
        match work.action {
            Action::Create => match self.remove_made(work).await? {
                None => Ok(Some(Completion::Removed)),
                Some(ended) => Ok(ended),
            },
            Action::Update => match &work.claim.step.prior {
                Some(former) => self.restore(work, former, Some(work.prior())).await,
                None => Ok(Some(Completion::Removed)),
            },
            Action::Replace => self.undo_replace(work).await,
            // Deletions are never undone, and nothing else has an effect.
            Action::Delete | Action::Run | Action::Noop => Ok(Some(Completion::Removed)),
        }
    }

    /// Removes what the step made: `None` once it is gone, else how the step ends for now.
    pub(crate) async fn remove_made(&self, work: &Work<'_>) -> Result<Option<Ended>> {
        let (lookup, state) = made_by(work);
        let request = DestroyRequest { resource_type: work.prepared.row.type_id.clone(), lookup, state };
        match self.call_destroy(work, request).await {
            Called::Answer(Outcome::Succeeded(_)) => Ok(None),
            other => self.undo_outcome(work, other).await.map(Some),
        }
    }

    /// Makes what stood before once more: over what is there, or with no `prior` in its place.
    pub(crate) async fn restore(
        &self,
        work: &Work<'_>,
        former: &Former,
        prior: Option<Prior>,
    ) -> Result<Ended> {
        let inputs = self.opened_inputs(&former.inputs, &former.sealed_inputs).await?;
        match self.call_apply(work, true, prior, inputs.clone()).await {
            Called::Answer(Outcome::Succeeded(success)) => {
                if let Some(error) = mistake(&work.claim.step.driver, &success.outputs) {
                    return Ok(Some(self.failure(work.claim, error, Retry::Never, None)));
                }
                let inputs = Inputs { resolved: inputs, recorded: former.inputs.clone(), artifact: None };
                let made = self.made(work.prepared, &inputs, success)?;
                // The former inputs are sealed already.
                let secrets =
                    made.secrets.into_iter().filter(|sealed| !sealed.reference.ends_with("/$inputs"));
                let sealed_inputs = former.sealed_inputs.clone();
                let made = Applied { secrets: secrets.collect(), sealed_inputs, ..made };
                Ok(Some(Completion::Restored(Box::new(made))))
            }
            other => self.undo_outcome(work, other).await,
        }
    }

    async fn undo_outcome(&self, work: &Work<'_>, called: Called<Outcome>) -> Result<Ended> {
        self.outcome(work, Action::Delete, called, None).await
    }
}
