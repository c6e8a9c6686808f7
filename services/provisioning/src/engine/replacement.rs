//! Replacing has two halves: the former thing goes, the new one comes. That the former is gone is kept between them, so
//! that whoever carries the step on, or undoes it, knows in which half it was: what still stands is never made again.

use pavior_driver::{DestroyRequest, Lookup, Observation, ObserveRequest, Outcome, SinkClosed};

use super::Engine;
use super::call::Called;
use super::outcome::Retry;
use super::work::{Ended, Work};
use crate::domain::failure::FailureCode;
use crate::domain::operation::Prior;
use crate::domain::plan::Action;
use crate::error::{Error, Result};
use crate::store::{Completion, StepError};

/// What stood before the operation; `None` when nothing did.
fn former<'a>(work: &'a Work<'_>) -> Option<&'a Prior> {
    work.claim.step.prior.as_ref().filter(|prior| !prior.identity.is_empty())
}

impl Engine {
    /// The first half: takes the former thing down. `None` once it is known to be gone, else how the step ends for now.
    pub(crate) async fn remove_former(&self, work: &Work<'_>) -> Result<Option<Ended>> {
        let Some(prior) = former(work).filter(|_| !work.claim.step.former_gone) else {
            return Ok(None);
        };
        if work.claim.op.parked.is_some() {
            // It may be what this operation has made, and somebody has used since.
            let message = "what is to be replaced may not be what stood there before the database was set back: \
                           give this up, and ask for the change anew";
            let error = StepError::new(FailureCode::Restored, message);
            return Ok(Some(Some(self.failure(work.claim, error, Retry::Never, None))));
        }
        let request = DestroyRequest {
            resource_type: work.prepared.row.type_id.clone(),
            lookup: Lookup::Identity(prior.identity.clone()),
            state: prior.state.clone(),
        };
        match self.call_destroy(work, request).await {
            Called::Answer(Outcome::Succeeded(_)) => self.keep_former_gone(work).await,
            other => self.outcome(work, Action::Replace, other, None).await.map(Some),
        }
    }

    /// Keeps that the former thing is gone; without that, nothing may take its place.
    async fn keep_former_gone(&self, work: &Work<'_>) -> Result<Option<Ended>> {
        let kept = tokio::select! {
            biased;
            () = work.stop.lost() => Err(SinkClosed::ClaimLost),
            kept = work.sink.former_gone() => kept,
        };
        match kept {
            Ok(()) => Ok(None),
            Err(SinkClosed::ClaimLost) => Ok(Some(None)),
            Err(SinkClosed::NotKept) => {
                Err(Error::Corrupt("that the former thing is gone could not be kept".to_owned()))
            }
        }
    }

    /// Undoes a replacement. As long as the former thing stands, that is all there is to say; once it is gone, what was
    /// made in its place goes too, and it is made again from its former inputs.
    pub(crate) async fn undo_replace(&self, work: &Work<'_>) -> Result<Ended> {
        if let Some(prior) = former(work).filter(|_| !work.claim.step.former_gone) {
            let request = ObserveRequest {
                resource_type: work.prepared.row.type_id.clone(),
                lookup: Lookup::Identity(prior.identity.clone()),
            };
            match self.call_observe(work, request).await {
                Err(ended) => return Ok(ended),
                Ok(Observation::Found(_)) => return Ok(Some(Completion::Removed)),
                Ok(Observation::Absent) => {
                    if let Some(ended) = self.keep_former_gone(work).await? {
                        return Ok(ended);
                    }
                }
                Ok(Observation::Partial { message, .. } | Observation::Indeterminate { message }) => {
                    return Ok(Some(self.half_gone(work, &message)));
                }
            }
        }
        if let Some(ended) = self.remove_made(work).await? {
            return Ok(ended);
        }
        match former(work) {
            Some(prior) => self.restore(work, prior, None).await,
            None => Ok(Some(Completion::Removed)),
        }
    }

    /// Neither to be kept nor to be made again: whether what is left may go is for people to say.
    fn half_gone(&self, work: &Work<'_>, message: &str) -> Completion {
        let message = work.sink.redactor().text(message);
        let message = format!(
            "only parts of what was to be replaced are left ({message}): mend or remove it, then retry"
        );
        self.failure(work.claim, StepError::new(FailureCode::WorkFailed, message), Retry::Never, None)
    }
}
