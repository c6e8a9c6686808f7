//! Errors as statuses, exhaustively.

use std::time::Duration;

use pavior_rpc::{ErrorReason, Problem};
use tonic::Status;

use crate::error::Error;

/// When to look again for what people have to do.
const FOR_PEOPLE: Duration = Duration::from_secs(60);

/// The status of an error.
pub(crate) fn to_status(error: Error) -> Status {
    Problem::from(error).into()
}

/// The full type of one of provisioning's resources.
fn resource_type(kind: &str) -> String {
    format!("provisioning.pavior.dev/{kind}")
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(problem) => problem,
            Error::NotFound { kind, name } => Problem::not_found(&resource_type(kind), name),
            Error::AlreadyExists { kind, name } => Problem::already_exists(&resource_type(kind), name),
            Error::Busy { ref operation, .. } => {
                Problem::aborted(ErrorReason::ResourceBusy, error.to_string())
                    .with("operation", operation.as_str())
            }
            Error::Stale { .. } => Problem::aborted(ErrorReason::ResourceBusy, format!("{error}: try again")),
            Error::Waits { ref operation, .. } => {
                let problem = Problem::aborted(ErrorReason::ResourceBusy, error.to_string());
                problem.with("operation", operation.as_str()).retry_in(FOR_PEOPLE)
            }
            Error::Removes { ref operation, ref whom, .. } => {
                let problem = Problem::aborted(ErrorReason::ResourceBusy, error.to_string());
                let problem = problem.with("operation", operation.as_str());
                if whom.is_some() { problem.retry_in(FOR_PEOPLE) } else { problem }
            }
            Error::Declared { ref resource, .. } => {
                let remedy = "delete the resource with its environment or project first";
                Problem::precondition(ErrorReason::InvalidState, error.to_string())
                    .because("STATE", resource, remedy)
            }
            Error::CarriedOut { ref operation } => {
                let problem = Problem::precondition(ErrorReason::InvalidState, error.to_string());
                problem.with("operation", operation.as_str())
            }
            Error::TooManyPlans { limit } => {
                let problem = Problem::resource_exhausted(ErrorReason::QuotaExceeded, error.to_string());
                problem.with("limit", limit.to_string())
            }
            Error::Begun { ref operation } => {
                Problem::precondition(ErrorReason::InvalidState, error.to_string())
                    .with("operation", operation.as_str())
                    .because(
                        "STATE",
                        operation.as_str(),
                        "a deletion can be cancelled until its first step begins",
                    )
            }
            Error::Stuck { ref operation } => {
                Problem::precondition(ErrorReason::InvalidState, error.to_string())
                    .with("operation", operation.as_str())
                    .because(
                        "STATE",
                        operation.as_str(),
                        "only an operation that goes on by itself can be cancelled, or one that a restore has held up",
                    )
            }
            Error::Resource(error) => error.into(),
            Error::Illegal(error) => Problem::precondition(ErrorReason::InvalidState, error.to_string()),
            Error::Store(error) => pavior_relay::problem(&error),
            error @ (Error::Fenced { .. } | Error::Corrupt(_) | Error::Seal(_) | Error::Died(_)) => {
                Problem::internal_error(&error)
            }
        }
    }
}
