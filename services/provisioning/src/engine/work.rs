//! A claimed step with what its call needs.

use std::sync::Arc;
use std::time::Duration;

use pavior_driver::{Driver, Prior};

use super::inputs::{Inputs, Prepared};
use super::sink::EngineSink;
use super::stop::Stop;
use crate::domain::failure::FailureCode;
use crate::domain::plan::Action;
use crate::domain::taint;
use crate::store::{Claim, Completion, StepError};

/// A claim with what its call needs.
pub(crate) struct Work<'a> {
    pub(crate) claim: &'a Claim,
    pub(crate) action: Action,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) prepared: &'a Prepared,
    pub(crate) sink: &'a EngineSink,
    pub(crate) stop: &'a Stop,
    /// How long a call may take.
    pub(crate) limit: Duration,
}

impl Work<'_> {
    /// What is there, as it is recorded.
    pub(crate) fn prior(&self) -> Prior {
        let row = &self.prepared.row;
        Prior {
            identity: row.identity.clone(),
            inputs: row.inputs.clone(),
            outputs: row.outputs.clone(),
            state: row.driver_state.clone(),
        }
    }

    /// The inputs in both forms. Whatever the plan knew of them, no secret is opened for an input that takes none.
    pub(crate) fn inputs(&self) -> std::result::Result<Inputs, StepError> {
        let inputs = self.prepared.inputs()?;
        let info = self.driver.info();
        let takes = info.secret_inputs(&self.prepared.row.type_id);
        match taint::hidden(&inputs.recorded).into_iter().find(|flow| !flow.allowed(takes)) {
            None => Ok(inputs),
            Some(flow) => {
                let (input, driver) = (flow.path.join("."), &self.claim.step.driver);
                let message =
                    format!("`{input}` would be given a secret, and driver `{driver}` takes none there");
                Err(StepError::new(FailureCode::InvalidArgument, message))
            }
        }
    }
}

/// What a call led to; `None` when the claim is lost.
pub(crate) type Ended = Option<Completion>;
