//! The collector of malformed fields.

use std::fmt;

use pavior_core::Fault;

use super::{FieldViolation, Problem};

/// Collects every malformed field of a request before the answer is given.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    /// None so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn add(&mut self, field: impl Into<String>, fault: Fault, description: impl Into<String>) {
        self.0.push(FieldViolation::new(field, fault, description));
    }

    /// Keeps the error of `result` as a violation of `field`.
    pub fn check<T, E: fmt::Display>(
        &mut self,
        field: &str,
        fault: Fault,
        result: Result<T, E>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(err) => {
                self.add(field, fault, err.to_string());
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

#[cfg(test)]
mod tests {
    use pavior_proto::pavior::r#type::v1::FieldViolationReason as Published;

    use super::*;

    #[test]
    fn every_reason_is_published() {
        let name = |fault: &Fault| format!("FIELD_VIOLATION_REASON_{}", fault.as_str());
        let numbers: Vec<i32> = Fault::ALL
            .iter()
            .map(|fault| Published::from_str_name(&name(fault)).map_or(0, i32::from))
            .collect();
        assert_eq!(numbers, (1..=17).collect::<Vec<i32>>());
        assert_eq!(Published::try_from(18).ok(), None, "and no other is");
    }
}
