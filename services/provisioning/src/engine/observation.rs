//! What became of a call whose outcome is not known.

use pavior_driver::{Lookup, Observation, ObserveRequest, Success};

use super::Engine;
use super::call::Called;
use super::outcome::{Retry, mistake};
use super::work::{Ended, Work};
use crate::domain::failure::FailureCode;
use crate::domain::plan::Action;
use crate::error::Result;
use crate::store::{Completion, StepError};

impl Engine {
    /// Asks the driver, and decides: it is done, or may be done again.
    pub(crate) async fn observe(&self, work: &Work<'_>, action: Action) -> Result<Ended> {
        let row = &work.prepared.row;
        let lookup = match action {
            Action::Delete => Lookup::Identity(row.identity.clone()),
            _ => Lookup::Key(work.claim.step.idempotency_key.clone()),
        };
        let request = ObserveRequest { resource_type: row.type_id.clone(), lookup };
        Ok(match self.call_observe(work, request).await {
            Ok(observation) => Some(self.observed(work, action, observation)?),
            Err(ended) => ended,
        })
    }

    /// Asks the driver; without a clear answer, how the step ends for now.
    pub(crate) async fn call_observe(
        &self,
        work: &Work<'_>,
        request: ObserveRequest,
    ) -> std::result::Result<Observation, Ended> {
        let context = self.context(work, false);
        let observe = work.driver.observe(&context, request);
        let unclear = |message: String| {
            let error = StepError::new(FailureCode::Unknown, message);
            // To look is no attempt: it goes on, ever more seldom, as long as there is time.
            Some(self.failure(work.claim, error, Retry::Free(None), None))
        };
        match self.call(work.sink, work.stop, work.limit, observe).await {
            Called::ClaimLost => Err(None),
            Called::Unknown(why) => Err(unclear(why.to_owned())),
            Called::Answer(Observation::Indeterminate { message }) => {
                self.is_away(&work.claim.step.driver, &work.driver).await;
                Err(unclear(work.sink.redactor().text(&message)))
            }
            Called::Answer(observation) => Ok(observation),
        }
    }

    fn observed(&self, work: &Work<'_>, action: Action, observation: Observation) -> Result<Completion> {
        Ok(match (action, observation) {
            (Action::Delete, Observation::Absent) => Completion::Destroyed,
            (Action::Delete, _) => Completion::NoEffect,
            // The call is repeated, and says what is wrong.
            (_, Observation::Found(found)) if mistake(&work.claim.step.driver, &found.outputs).is_some() => {
                Completion::NoEffect
            }
            (_, Observation::Found(found)) => match work.inputs() {
                Ok(inputs) => {
                    let success = Success::from(found);
                    Completion::Applied(Box::new(self.made(work.prepared, &inputs, success)?))
                }
                // The same inputs were rendered before the call; the call is repeated and says what is wrong.
                Err(_) => Completion::NoEffect,
            },
            // The same key carries on with what is there in part.
            (_, _) => Completion::NoEffect,
        })
    }
}
