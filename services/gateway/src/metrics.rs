//! What the gateway counts.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use tonic::Code;

use crate::routes::Method;

pub(crate) struct Metrics {
    /// Requests without valid credentials, by reason.
    pub(crate) unauthenticated: Counter<u64>,
    decisions: Counter<u64>,
    /// Audit records that could not be kept.
    pub(crate) audit_dropped: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            unauthenticated: meter
                .u64_counter("pavior.gateway.unauthenticated")
                .with_description("requests without valid credentials")
                .build(),
            decisions: meter
                .u64_counter("pavior.gateway.decisions")
                .with_description("what became of governed calls before they were forwarded")
                .build(),
            audit_dropped: meter
                .u64_counter("pavior.gateway.audit.dropped")
                .with_description("audit records that could not be kept")
                .build(),
        }
    }

    pub(crate) fn decided(&self, method: &Method, code: Code) {
        if !method.governed {
            return;
        }
        let effect = match code {
            Code::Ok => "allow",
            Code::PermissionDenied | Code::FailedPrecondition => "deny",
            Code::Unavailable => "undecided",
            _ => "malformed",
        };
        let action = KeyValue::new("action", method.action.clone());
        self.decisions.add(1, &[action, KeyValue::new("effect", effect)]);
    }
}
