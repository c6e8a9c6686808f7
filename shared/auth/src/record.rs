//! The audit event of a call: the one place that knows who asked, under which decision, in which call and trace, and
//! for how long it has been worked on.

use pavior_core::audit::{Affected, AuditEvent, Cause, Change, Outcome, Phase, PrincipalRef};
use pavior_core::clock::Clock;
use pavior_core::id::IdGen;

use crate::permit::Permit;

/// The only role through which callers come from outside.
const GATEWAY: &str = "gateway";

/// What a service did for a caller.
#[derive(Debug, Clone)]
pub struct Act {
    /// The action, such as `identity.groups.create`.
    pub action: String,
    /// Whether it is announced or done.
    pub phase: Phase,
    /// What it was done to, the target first.
    pub affected: Vec<Affected>,
    /// How it ended; how long it took is known here.
    pub outcome: Outcome,
    /// The `request_id` in the request; empty when it has none.
    pub request_id: String,
    /// What changed.
    pub change: Option<Change>,
    /// One sentence for people.
    pub summary: String,
}

impl Permit {
    /// The event that tells what was done under this permit. It must be kept, or the act fails.
    pub fn event(&self, act: Act, ids: &dyn IdGen, clock: &dyn Clock) -> AuditEvent {
        let Act { action, phase, affected, outcome, request_id, change, summary } = act;
        AuditEvent {
            phase,
            affected,
            cause: Cause { request_id, ..self.cause() },
            decision: self.decision().cloned(),
            outcome: Outcome { duration: self.elapsed(), ..outcome },
            change,
            summary,
            ..AuditEvent::new(ids.uuid(), clock.now(), &action, self.acting())
        }
    }

    /// Who acts: the principal, and through what when that is not the gateway alone.
    pub fn acting(&self) -> PrincipalRef {
        let mut acting = PrincipalRef::of(self.principal());
        let direct = [GATEWAY, &self.principal().subject].contains(&self.caller());
        if acting.via.is_empty() && !direct {
            acting.via = pavior_core::principal::service_name(self.caller());
        }
        acting
    }

    /// The call and the trace.
    pub fn cause(&self) -> Cause {
        Cause {
            call_id: self.request_id().to_owned(),
            trace_id: self.trace_id().unwrap_or_default().to_owned(),
            ..Cause::default()
        }
    }
}
