//! Errors as callers see them.

use std::time::Duration;

use pavior_core::Fault;
use pavior_proto::pavior::audit::internal::v1::RefusalReason;
use pavior_rpc::{ErrorReason, Problem, stream};
use pavior_store::{ErrorKind, StoreError};
use tonic::Code;

use crate::domain::batch::{self, SequenceConflict};
use crate::error::Error;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Resource(error) => error.into(),
            Error::Store(error) => of_store(error),
            error @ (Error::Stopped | Error::NotWritten) => unavailable(&error.to_string()),
            // What is wrong with a log is for operators; it was or is logged. A writer may come back to it after repair.
            error @ (Error::Inconsistent { .. } | Error::ParkingFull { .. }) => {
                Problem::internal_error(&error)
            }
            error @ (Error::RolledBack(_) | Error::CheckpointReplica(_)) => Problem::internal_error(&error),
            error @ (Error::Encoding(_) | Error::Randomness | Error::Key(_) | Error::Config(_)) => {
                Problem::internal_error(&error)
            }
            Error::Refused { ref service, ref epoch, ref conflict } => {
                refused(error.to_string(), service, epoch, conflict)
            }
            // Not INVALID_ARGUMENT: the same request is good when the log has grown.
            error @ Error::BeyondEnd { field, .. } => {
                let mut problem = Problem::invalid_field(field, Fault::OutOfRange, error.to_string());
                problem.code = Code::OutOfRange;
                problem
            }
            error @ Error::ResumeBeyondEnd { .. } => stream::expired(error.to_string()),
        }
    }
}

fn of_store(error: StoreError) -> Problem {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Serialization => {
            tracing::warn!(error = %anyhow::Error::from(error), "audit database unavailable");
            unavailable("the audit database does not answer")
        }
        // A writer offers its events again, and repeats are recognized by their content.
        ErrorKind::Unknown => {
            tracing::error!(error = %anyhow::Error::from(error), "audit database failed during a commit");
            unavailable("the audit database failed during a commit")
        }
        ErrorKind::Unique | ErrorKind::Corrupt | ErrorKind::Other => Problem::internal_error(&error),
    }
}

fn unavailable(message: &str) -> Problem {
    Problem::unavailable(message)
        .with_reason(ErrorReason::AuditUnavailable)
        .retry_in(Duration::from_millis(500))
}

/// Repeating such a call changes nothing: an operator has to act.
fn refused(message: String, service: &str, epoch: &str, conflict: &SequenceConflict) -> Problem {
    let (reason, metadata) = match conflict {
        SequenceConflict::Gap { expected, found } => (
            RefusalReason::SequenceGap,
            vec![("expected", expected.to_string()), ("found", found.to_string())],
        ),
        SequenceConflict::Diverged { sequence, stored, offered } => (
            RefusalReason::ProducerDiverged,
            vec![
                ("sequence", sequence.to_string()),
                ("stored", batch::name(stored.as_ref())),
                ("offered", offered.to_string()),
            ],
        ),
    };
    let problem = Problem::refusal(reason, message);
    let producer = [("service", service.to_owned()), ("epoch", epoch.to_owned())];
    producer.into_iter().chain(metadata).fold(problem, |problem, (key, value)| problem.with(key, value))
}
