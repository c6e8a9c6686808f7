//! Errors as callers see them.

use std::time::Duration;

use pavior_rpc::{ErrorReason, Problem};
use pavior_store::ErrorKind;
use tonic::Code;

use crate::error::Error;

/// The one place where an error becomes a code, a reason and details.
pub(super) fn problem(error: Error) -> Problem {
    match error {
        Error::Store(error) => match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Serialization => {
                tracing::warn!(error = %anyhow::Error::from(error), "audit database unavailable");
                unavailable("the audit database does not answer")
            }
            ErrorKind::Unknown | ErrorKind::Unique | ErrorKind::Corrupt | ErrorKind::Other => {
                Problem::internal_error(&error)
            }
        },
        error @ (Error::Stopped | Error::NotWritten) => unavailable(&error.to_string()),
        // What is wrong with a log is for operators; it was or is logged. A writer may come back to it after repair.
        error @ Error::Inconsistent { .. } => Problem::internal_error(&error),
        error @ (Error::Encoding(_) | Error::Randomness | Error::Key(_) | Error::Config(_)) => {
            Problem::internal_error(&error)
        }
        Error::NoRecord(name) => Problem::not_found("AuditRecord", name),
        Error::NoTile { level, index } => Problem::not_found("Tile", format!("{level}/{index}")),
        // Not INVALID_ARGUMENT: the same request is good when the log has grown.
        error @ Error::BeyondEnd { field, .. } => {
            let mut problem = Problem::invalid_field(field, error.to_string());
            problem.code = Code::OutOfRange;
            problem
        }
        Error::Filter(error) => {
            Problem::invalid_reason(ErrorReason::InvalidFilter, "filter", error.to_string())
        }
    }
}

fn unavailable(message: &str) -> Problem {
    Problem::unavailable(message)
        .with_reason(ErrorReason::AuditUnavailable)
        .retry_in(Duration::from_millis(500))
}
