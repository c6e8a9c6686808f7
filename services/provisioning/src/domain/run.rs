//! A run of a pipeline.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::failure::StepFailure;
use super::state::{lifecycle, named};

/// A run as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub uid: Uuid,
    /// Its project, by resource name.
    pub project: String,
    /// Its pipeline, by resource name.
    pub pipeline: String,
    /// Its resource name.
    pub name: String,
    /// Its state.
    pub state: RunState,
    /// What was asked for: a commit, a branch or a tag; the default branch when empty.
    pub revision: String,
    /// The commit that it ran for.
    pub commit: String,
    /// Why it was begun.
    pub cause: RunCause,
    /// What its driver says of its steps: a list.
    pub steps: Value,
    /// What its driver says that it made: a list.
    pub artifacts: Value,
    /// Why it failed.
    pub error: Option<StepFailure>,
    /// Its operation, by resource name.
    pub operation: String,
    /// Who asked for it, by resource name.
    pub creator: String,
    /// When it was accepted.
    pub create_time: OffsetDateTime,
    /// When it ended.
    pub end_time: Option<OffsetDateTime>,
}

named! {
    /// The lifecycle state of a run.
    RunState {
        /// Waits for its step.
        Queued = "QUEUED",
        /// Its driver is at it.
        Running = "RUNNING",
        /// It is through.
        Succeeded = "SUCCEEDED",
        /// It failed.
        Failed = "FAILED",
        /// It was cancelled, or never begun.
        Cancelled = "CANCELLED",
    }
}

named! {
    /// What can happen to a run.
    RunEvent {
        /// Its driver is called for the first time.
        Start = "START",
        /// Its driver is through with it.
        Succeed = "SUCCEED",
        /// Its driver failed.
        Fail = "FAIL",
        /// It is not wanted any more.
        Cancel = "CANCEL",
        /// It is run again.
        Reopen = "REOPEN",
    }
}

lifecycle! {
    RunState by RunEvent {
        Start: Queued => Running;
        Succeed: Queued | Running => Succeeded;
        Fail: Queued | Running => Failed;
        Cancel: Queued | Running => Cancelled;
        Reopen: Failed | Cancelled => Queued;
    }
}

named! {
    /// Why a run was begun.
    RunCause {
        /// Somebody asked for it.
        Call = "CALL",
        /// Its project, or an environment of it, was made.
        Creation = "CREATION",
    }
}
