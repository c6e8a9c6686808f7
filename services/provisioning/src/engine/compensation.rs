//! Undo: what was made is removed, what was changed gets its former inputs back.

use pavior_driver::{DestroyRequest, Lookup, Outcome, Prior};
use serde_json::Value;

use super::Engine;
use super::call::Called;
use super::executor::{Ended, Work};
use super::inputs::Inputs;
use crate::domain::plan::Action;
use crate::error::Result;
use crate::store::{Completion, Made};

impl Engine {
    /// Undoes one step. Every call may be repeated.
    pub(crate) async fn undo(&self, work: &Work<'_>, action: Action) -> Result<Ended> {
        match action {
            Action::Create => self.undo_create(work).await,
            Action::Update | Action::Replace => self.undo_change(work, action).await,
            // Deletions are never undone, and nothing else has an effect.
            Action::Delete | Action::Run | Action::Noop => Ok(Some(Completion::Removed)),
        }
    }

    async fn undo_create(&self, work: &Work<'_>) -> Result<Ended> {
        let row = &work.prepared.row;
        let lookup = match row.identity.as_str() {
            "" => Lookup::Key(work.claim.step.idempotency_key.clone()),
            identity => Lookup::Identity(identity.to_owned()),
        };
        // A call that broke off left at most a checkpoint.
        let state = match (&row.driver_state, &work.claim.step.checkpoint) {
            (Value::Null, Some(checkpoint)) => checkpoint.clone(),
            (state, _) => state.clone(),
        };
        let request = DestroyRequest { resource_type: row.type_id.clone(), lookup, state };
        let called = self.call_destroy(work, &work.context, request).await?;
        match called {
            Called::Answer(Outcome::Succeeded(_)) => Ok(Some(Completion::Removed)),
            other => self.undo_outcome(work, other).await,
        }
    }

    async fn undo_change(&self, work: &Work<'_>, action: Action) -> Result<Ended> {
        let row = &work.prepared.row;
        let Some(former) = work.claim.step.prior.clone() else {
            return Ok(Some(Completion::Removed));
        };
        if action == Action::Replace {
            let request = DestroyRequest {
                resource_type: row.type_id.clone(),
                lookup: Lookup::Key(work.claim.step.idempotency_key.clone()),
                state: row.driver_state.clone(),
            };
            match self.call_destroy(work, &work.context, request).await? {
                Called::Answer(Outcome::Succeeded(_)) => {}
                other => return self.undo_outcome(work, other).await,
            }
        }
        let prior = (action == Action::Update).then(|| Prior {
            identity: row.identity.clone(),
            inputs: row.inputs.clone(),
            outputs: row.outputs.clone(),
            state: row.driver_state.clone(),
        });
        let mut context = work.context.clone();
        context.idempotency_key.push_str("/undo");
        let inputs = self.former_inputs(&former).await?;
        let called = self.call_apply(work, &context, prior, inputs.clone()).await?;
        match called {
            Called::Answer(Outcome::Succeeded(success)) => {
                let text = |key: &str| former.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                let recorded = former.get("inputs").cloned().unwrap_or_default();
                let inputs = Inputs { resolved: inputs, recorded, artifact: None };
                let made = self.made(work.prepared, &inputs, success)?;
                // The former inputs are sealed already.
                let secrets =
                    made.secrets.into_iter().filter(|sealed| !sealed.reference.ends_with("/$inputs"));
                let made = Made { secrets: secrets.collect(), sealed_inputs: text("sealed_inputs"), ..made };
                Ok(Some(Completion::Restored(Box::new(made))))
            }
            other => self.undo_outcome(work, other).await,
        }
    }

    async fn undo_outcome(&self, work: &Work<'_>, called: Called<Outcome>) -> Result<Ended> {
        self.outcome(work, Action::Delete, called, None).await
    }
}
