//! The collector of malformed fields.

use std::fmt;

use super::{FieldViolation, Problem};

/// Collects every malformed field of a request before the answer is given.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    /// None so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one with the reason `INVALID_FIELD`.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.add_reason(field, description, "INVALID_FIELD");
    }

    /// Adds one with a reason of its own.
    pub fn add_reason(
        &mut self,
        field: impl Into<String>,
        description: impl Into<String>,
        reason: impl Into<String>,
    ) {
        self.0.push(FieldViolation {
            field: field.into(),
            description: description.into(),
            reason: reason.into(),
        });
    }

    /// Keeps the error of `result` as a violation of `field`.
    pub fn check<T, E: fmt::Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(err) => {
                self.add(field, err.to_string());
                None
            }
        }
    }

    /// Takes over those of another check, with `prefix.` before their paths.
    pub fn extend_under(&mut self, prefix: &str, other: Violations) {
        self.0.extend(other.0.into_iter().map(|mut violation| {
            violation.field = format!("{prefix}.{}", violation.field);
            violation
        }));
    }

    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn into_vec(self) -> Vec<FieldViolation> {
        self.0
    }

    /// Fails with all of them when there is one.
    pub fn into_result(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid(self.0)) }
    }
}
