//! Metrics: decisions by effect, and evaluation errors.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};

use crate::domain::combine::Outcome;

/// Counters of decisions.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    decisions: Counter<u64>,
    errors: Counter<u64>,
}

impl Metrics {
    /// Registers the counters.
    pub(crate) fn new(meter: &Meter) -> Self {
        let decisions = meter.u64_counter("pavior.policy.decisions").with_description("decisions by effect");
        let errors = meter
            .u64_counter("pavior.policy.errors")
            .with_description("decisions denied because a policy cannot be evaluated: to be alerted on");
        Self { decisions: decisions.build(), errors: errors.build() }
    }

    /// Counts a decision.
    pub(crate) fn count(&self, outcome: &Outcome) {
        self.decisions.add(1, &[KeyValue::new("effect", outcome.effect.as_str())]);
        if outcome.policy_error {
            self.errors.add(1, &[]);
        }
    }
}
