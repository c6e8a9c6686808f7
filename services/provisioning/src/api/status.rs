//! Errors as statuses, exhaustively.

use pavior_core::Fault;
use pavior_rpc::{ErrorReason, Problem};
use tonic::{Response, Status};

use crate::error::Error;

/// An answer, or the status of its error.
#[allow(clippy::result_large_err)]
pub(crate) fn respond<T>(result: Result<T, Error>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(to_status)
}

/// The status of an error.
pub(crate) fn to_status(error: Error) -> Status {
    to_problem(error).into()
}

/// The full type of one of provisioning's resources.
fn resource_type(kind: &str) -> String {
    format!("provisioning.pavior.dev/{kind}")
}

fn to_problem(error: Error) -> Problem {
    match error {
        Error::Refused(problem) => problem,
        Error::RequestIdReused => {
            let what = "was used before with another request";
            Problem::invalid_reason(ErrorReason::RequestIdReused, "request_id", Fault::Conflict, what)
        }
        Error::NotFound { kind, name } => Problem::not_found(&resource_type(kind), name),
        Error::AlreadyExists { kind, name } => Problem::already_exists(&resource_type(kind), name),
        Error::Busy { name, operation } => {
            let message = match operation.as_str() {
                "" => format!("`{name}` has changed while this was planned: try again"),
                operation => format!("operation `{operation}` is working on `{name}`"),
            };
            Problem::aborted(ErrorReason::ResourceBusy, message).with("operation", operation)
        }
        Error::CarriedOut { ref operation } => {
            let problem = Problem::precondition(ErrorReason::InvalidState, error.to_string());
            problem.with("operation", operation.as_str())
        }
        Error::TooManyPlans { limit } => {
            let problem = Problem::resource_exhausted(ErrorReason::QuotaExceeded, error.to_string());
            problem.with("limit", limit.to_string())
        }
        Error::Begun { ref operation } => Problem::precondition(ErrorReason::InvalidState, error.to_string())
            .with("operation", operation.as_str())
            .because("STATE", operation.as_str(), "a deletion can be cancelled until its first step begins"),
        Error::Stuck { ref operation } => Problem::precondition(ErrorReason::InvalidState, error.to_string())
            .with("operation", operation.as_str())
            .because(
                "STATE",
                operation.as_str(),
                "only an operation that goes on by itself can be cancelled",
            ),
        Error::EtagMismatch { current } => Problem::etag_mismatch(current),
        Error::Listing { field, problem } => {
            let reason = match field.as_str() {
                "page_token" => ErrorReason::InvalidPageToken,
                _ => ErrorReason::InvalidFilter,
            };
            Problem::invalid_reason(reason, field, Fault::Syntax, problem)
        }
        Error::Illegal(error) => Problem::precondition(ErrorReason::InvalidState, error.to_string()),
        Error::Store(error) => pavior_relay::problem(&error),
        error @ (Error::Fenced { .. } | Error::Corrupt(_) | Error::Seal(_) | Error::Died(_)) => {
            Problem::internal_error(&error)
        }
    }
}
