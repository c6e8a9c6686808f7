//! What a driver's answer means: done, tried again, looked at, or given up.

use std::time::Duration;

use pavior_core::value::{INEXACT, inexact_paths};
use pavior_driver::{Failure, FailureCode as DriverCode, Outcome};
use serde_json::Value;

use super::Engine;
use super::call::Called;
use super::inputs::Inputs;
use super::work::{Ended, Work};
use crate::domain::failure::FailureCode;
use crate::domain::plan::Action;
use crate::error::{Error, Result};
use crate::store::{Claim, Completion, Purpose, RetryAfter, StepError};

/// Whether a step that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// No: it would fail again.
    Never,
    /// As long as there are attempts, at the earliest after so long.
    Counted(Option<Duration>),
    /// Nothing was tried, since what it needs is away: as long as there is time, at the earliest after so long.
    Free(Option<Duration>),
}

/// What a driver's outputs hold that none may: its mistake, which trying again does not mend.
pub(crate) fn mistake(driver: &str, outputs: &Value) -> Option<StepError> {
    let wrong = match pavior_expr::marker_path(outputs) {
        // Taken for a secret it would be opened for whoever reads it next.
        Some(at) => format!("`{at}` that looks like a secret of the platform"),
        // Who asks for it would be told another one.
        None => {
            let at = inexact_paths(outputs, 1).pop()?;
            format!("`{}`, which {INEXACT}", at.trim_start_matches('.'))
        }
    };
    Some(StepError::new(FailureCode::Internal, format!("driver `{driver}` gave an output {wrong}")))
}

impl Engine {
    /// What a driver's answer means for the step.
    pub(crate) async fn outcome(
        &self,
        work: &Work<'_>,
        action: Action,
        called: Called<Outcome>,
        inputs: Option<&Inputs>,
    ) -> Result<Ended> {
        Ok(match called {
            Called::ClaimLost => None,
            Called::Unknown(why) => Some(self.lost(work.claim, action, why.to_owned(), false)),
            Called::Answer(Outcome::Unknown { message }) => {
                let away = self.is_away(&work.claim.step.driver, &work.driver).await;
                Some(self.lost(work.claim, action, work.sink.redactor().text(&message), away))
            }
            Called::Answer(Outcome::Failed(failure)) => Some(self.failed(work, action, failure).await),
            Called::Answer(Outcome::Succeeded(success)) => match inputs {
                Some(inputs) => Some(match mistake(&work.claim.step.driver, &success.outputs) {
                    None => Completion::Applied(Box::new(self.made(work.prepared, inputs, success)?)),
                    Some(error) => self.failure(work.claim, error, Retry::Never, Some(success.identity)),
                }),
                None => Some(Completion::Destroyed),
            },
        })
    }

    async fn failed(&self, work: &Work<'_>, action: Action, failure: Failure) -> Completion {
        let Failure { retryable, code, message, partial, details, retry_delay } = failure;
        let retry = match (work.claim.purpose, code) {
            (_, DriverCode::Unavailable) => {
                self.is_away(&work.claim.step.driver, &work.driver).await;
                Retry::Free(retry_delay)
            }
            // Nobody wished that.
            (Purpose::Undo, DriverCode::Cancelled) => Retry::Free(retry_delay),
            // Who has lost the claim is refused when the failure is recorded. While it holds, the driver has seen a
            // higher number than the engine ever gave, and that does not pass by trying for ever.
            (_, DriverCode::Fenced) => Retry::Counted(retry_delay),
            _ if retryable => Retry::Counted(retry_delay),
            _ => Retry::Never,
        };
        let message = work.sink.redactor().text(&message);
        let error = StepError { code: code.into(), message, details };
        let makes = matches!(action, Action::Create | Action::Update | Action::Replace);
        let remains = match partial {
            // Of a removal, too: what is left of it is not the thing that was there.
            Some(partial) if action != Action::Run => Some(partial.identity.unwrap_or_default()),
            // Replacing may have taken the former thing down; a cancelled call may have left something.
            _ if action == Action::Replace || (makes && code == DriverCode::Cancelled) => Some(String::new()),
            _ => None,
        };
        self.failure(work.claim, error, retry, remains)
    }

    /// Failed: tried again while that may help, and for good after that.
    pub(crate) fn failure(
        &self,
        claim: &Claim,
        error: StepError,
        retry: Retry,
        remains: Option<String>,
    ) -> Completion {
        let again = self.again(claim, retry);
        match claim.purpose {
            Purpose::Undo => Completion::UndoFailed { error, again },
            Purpose::Observe => {
                let again = again.unwrap_or_else(|| self.again_after(self.pause(1), true));
                Completion::Lost { error, again }
            }
            Purpose::Do => Completion::Failed { error, remains, again },
        }
    }

    fn again(&self, claim: &Claim, retry: Retry) -> Option<RetryAfter> {
        let config = &self.config;
        let (attempt, most) = match claim.purpose {
            Purpose::Undo => (claim.step.undo_attempt, config.max_undo_attempts),
            Purpose::Do | Purpose::Observe => (claim.step.attempt, config.max_attempts),
        };
        let attempt = u32::try_from(attempt).unwrap_or(u32::MAX);
        let (pause, after, counts) = match retry {
            Retry::Never => return None,
            Retry::Counted(_) if attempt >= most => return None,
            Retry::Counted(after) => (self.pause(attempt), after, true),
            Retry::Free(after) => {
                let waits = u32::try_from(claim.step.waits).unwrap_or(u32::MAX);
                (self.pause(waits.saturating_add(1)), after, false)
            }
        };
        Some(self.again_after(pause.max(after.unwrap_or_default()), counts))
    }

    fn again_after(&self, pause: Duration, counts: bool) -> RetryAfter {
        self.wake_after(pause);
        RetryAfter { after_micros: i64::try_from(pause.as_micros()).unwrap_or(i64::MAX), counts }
    }

    /// Not known: looked at soon, or undone by its key when that has been tried often enough. A driver that is away
    /// has not had its attempt.
    fn lost(&self, claim: &Claim, action: Action, message: String, away: bool) -> Completion {
        let error = StepError::new(FailureCode::Unknown, message);
        if claim.purpose == Purpose::Undo {
            let retry = if away { Retry::Free(None) } else { Retry::Counted(None) };
            return self.failure(claim, error, retry, None);
        }
        if away {
            return Completion::Lost { error, again: self.again_after(self.pause(1), false) };
        }
        let attempt = u32::try_from(claim.step.attempt).unwrap_or(u32::MAX);
        if attempt >= self.config.max_attempts {
            let makes = !matches!(action, Action::Delete | Action::Run);
            return Completion::Failed { error, remains: makes.then(String::new), again: None };
        }
        Completion::Lost { error, again: RetryAfter { after_micros: 0, counts: true } }
    }

    /// An error of our own around the call: the effect may have happened.
    pub(crate) fn broken(&self, claim: &Claim, error: &Error) -> Completion {
        tracing::error!(step = claim.step.name, operation = %claim.step.operation, %error, "a step could not be carried out");
        let error = StepError::new(FailureCode::Internal, "the engine could not carry the step out");
        match claim.purpose {
            Purpose::Do => self.failure(claim, error, Retry::Counted(None), Some(String::new())),
            Purpose::Observe | Purpose::Undo => self.failure(claim, error, Retry::Counted(None), None),
        }
    }
}
