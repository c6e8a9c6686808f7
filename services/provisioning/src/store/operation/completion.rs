//! How a held step ended, as the engine tells it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::domain::failure::{FailureCode, StepFailure};
use crate::store::secret::Sealed;

/// Why a step failed, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepError {
    /// The driver's code, or the engine's.
    pub code: FailureCode,
    /// For people, without secrets.
    pub message: String,
    /// What a program can read of it, by name.
    pub details: BTreeMap<String, String>,
}

impl StepError {
    /// An error that has no more to say.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: BTreeMap::new() }
    }

    /// As it is kept with the step.
    pub(crate) fn failure(&self) -> StepFailure {
        StepFailure { code: self.code, message: self.message.clone() }
    }
}

/// What a driver made, ready to be kept: secrets are references.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Applied {
    /// The driver's name of it.
    pub identity: String,
    /// Inputs as they are recorded.
    pub inputs: Value,
    /// Outputs.
    pub outputs: Value,
    /// The driver's state.
    pub state: Value,
    /// New secrets.
    pub secrets: Vec<Sealed>,
    /// Under which the inputs are sealed, when they hold secrets; else empty.
    pub sealed_inputs: String,
    /// The artifact that it runs.
    pub artifact: Option<Value>,
}

/// What a run gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunResult {
    /// The commit.
    pub commit: String,
    /// Its `steps`, with `elapsed_ms` since it began.
    pub steps: Value,
    /// What it made.
    pub artifacts: Value,
}

/// When a step is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter {
    /// After so long.
    pub after_micros: i64,
    /// False when what it needs was away: the attempt was none.
    pub counts: bool,
}

/// How a held step ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Completion {
    /// It is made or changed as asked.
    Applied(Box<Applied>),
    /// The run is through.
    Ran(RunResult),
    /// It is gone, as asked.
    Destroyed,
    /// It failed. With `again` it is tried again then; `remains` tells that something is left behind.
    Failed {
        /// Why.
        error: StepError,
        /// Something is left behind, with this identity when it is known.
        remains: Option<String>,
        /// When to try again.
        again: Option<RetryAfter>,
    },
    /// Nobody knows. Looked at again.
    Lost {
        /// Why.
        error: StepError,
        /// When to look.
        again: RetryAfter,
    },
    /// The call had no effect: it may be made again.
    NoEffect,
    /// The undo has removed it.
    Removed,
    /// The undo has put the former state back.
    Restored(Box<Applied>),
    /// The undo failed. With `again` it is tried again then, as long as there is time.
    UndoFailed {
        /// Why.
        error: StepError,
        /// When to try again.
        again: Option<RetryAfter>,
    },
}
