//! Errors as statuses: the one exhaustive list.

use pavior_rpc::{ErrorReason, Problem, Violations};
use tonic::{Response, Status};

use crate::app::approvals::closed;
use crate::error::Error;

/// The answer of a method.
// A `Status` is what handlers return; boxing it here would only move the cost to each of them.
#[allow(clippy::result_large_err)]
pub(super) fn respond<T>(result: Result<T, Error>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| problem(error).into())
}

/// What an error is to the caller.
pub(super) fn problem(error: Error) -> Problem {
    let text = error.to_string();
    match error {
        Error::Problem(problem) => problem,
        Error::NotFound { kind, name } => Problem::not_found(kind, name),
        Error::AlreadyExists { kind, name } => Problem::already_exists(kind, name),
        Error::EtagMismatch { current } => Problem::etag_mismatch(current),
        Error::HasDependents { name, dependents } => {
            let problem = Problem::precondition(
                ErrorReason::HasDependents,
                format!("{text}: delete what uses it first"),
            );
            let problem = problem.with("resource", name);
            dependents
                .into_iter()
                .fold(problem, |problem, dependent| problem.because("REFERENCE", dependent, "refers to it"))
        }
        Error::ReferenceNotFound { field, name } => Problem::precondition(
            ErrorReason::ReferenceNotFound,
            text,
        )
        .with("field", field)
        .because("REFERENCE", name, "does not exist"),
        Error::InvalidPolicy { problems } => invalid_policy(problems),
        Error::NotPermitted { action, resource } => Problem::permission_denied(&action, &resource),
        Error::Quota { kind, limit } => Problem::resource_exhausted(ErrorReason::QuotaExceeded, text)
            .with_quota(kind, format!("at most {limit} in an organization")),
        Error::NotEligible(_) => Problem::precondition(ErrorReason::ApproverNotEligible, text),
        Error::IllegalTransition(transition) => {
            Problem::precondition(ErrorReason::InvalidState, closed(&transition))
                .with("state", transition.state.as_str())
        }
        Error::OtherPlan { wanted, given: _ } => {
            Problem::precondition(ErrorReason::PlanStale, text).with("planDigest", wanted)
        }
        Error::DirectoryUnavailable(problem) => *problem,
        Error::Input(error) => Problem::internal(error),
        Error::RequestIdReused => Problem::invalid_reason(
            ErrorReason::RequestIdReused,
            "request_id",
            "was used before with different content: use a new one for a new request",
        ),
        Error::Store(error) => pavior_relay::problem(&error),
        Error::Bug(text) => Problem::internal(text),
    }
}

fn invalid_policy(problems: Vec<String>) -> Problem {
    let mut violations = Violations::new();
    for problem in problems {
        violations.add_reason("policy.source", problem, "INVALID_DOCUMENT");
    }
    Problem::invalid(violations.into_vec()).with_reason(ErrorReason::InvalidDocument)
}
