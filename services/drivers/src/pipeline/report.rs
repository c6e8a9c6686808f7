//! What is told of a run's steps: all of them, from the beginning.

use std::time::Instant;

use pavior_driver::Failure;
use serde::Serialize;
use serde_json::{Value, json};

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum State {
    Pending,
    Running,
    Succeeded,
    Failed,
    Skipped,
}

/// One step. Times are milliseconds since the run began: whoever hears of it knows what time it is.
#[derive(Debug, Clone, Serialize)]
struct StepReport {
    name: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// How far a run is.
pub(super) struct Report {
    begin: Instant,
    steps: Vec<StepReport>,
}

impl Report {
    /// Nothing has begun.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let pending = |name: &str| StepReport {
            name: name.to_owned(),
            state: State::Pending,
            exit_code: None,
            start_ms: None,
            end_ms: None,
            error: None,
        };
        Self { begin: Instant::now(), steps: names.map(pending).collect() }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A step begins.
    pub(super) fn begun(&mut self, index: usize) {
        let now = self.elapsed();
        if let Some(step) = self.steps.get_mut(index) {
            (step.state, step.start_ms) = (State::Running, Some(now));
        }
    }

    /// A step ended: with this code, or because of this failure. Those behind one that failed are not run.
    pub(super) fn ended(&mut self, index: usize, result: &Result<i32, Failure>) {
        let now = self.elapsed();
        let well = matches!(result, Ok(0));
        if let Some(step) = self.steps.get_mut(index) {
            step.state = if well { State::Succeeded } else { State::Failed };
            step.end_ms = Some(now);
            match result {
                Ok(code) => step.exit_code = Some(*code),
                Err(failure) => step.error = Some(failure.message.clone()),
            }
        }
        if !well {
            for step in self.steps.iter_mut().skip(index + 1) {
                step.state = State::Skipped;
            }
        }
    }

    /// For the engine: `steps`, and `elapsed_ms` that says when now is.
    pub(super) fn to_json(&self) -> Value {
        json!({ "steps": self.steps, "elapsed_ms": self.elapsed() })
    }
}
