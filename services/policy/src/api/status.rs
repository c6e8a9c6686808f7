//! Errors as statuses: the one exhaustive list.

use pavior_core::Fault;
use pavior_rpc::{ErrorReason, Problem, Violations};

use crate::app::approval::closed_message;
use crate::error::Error;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Resource(error) => error.into(),
            Error::InvalidPolicy { problems } => invalid_policy(problems),
            Error::NotEligible(_) => Problem::precondition(ErrorReason::ApproverNotEligible, text),
            Error::IllegalTransition(transition) => {
                Problem::precondition(ErrorReason::InvalidState, closed_message(&transition))
                    .with("state", transition.state.as_str())
            }
            Error::OtherPlan { wanted, given: _ } => {
                Problem::precondition(ErrorReason::PlanStale, text).with("planDigest", wanted)
            }
            Error::DirectoryUnavailable(problem) => *problem,
            Error::DirectoryOutdated(_) => Problem::restore_needed(error.to_string()),
            Error::Input(error) => Problem::internal(error),
            Error::Bug(text) => Problem::internal(text),
        }
    }
}

fn invalid_policy(problems: Vec<String>) -> Problem {
    let mut violations = Violations::new();
    for problem in problems {
        violations.add("policy.source", Fault::Syntax, problem);
    }
    Problem::invalid(violations.into_vec()).with_reason(ErrorReason::InvalidDocument)
}
