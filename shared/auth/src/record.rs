//! The audit event of a call: the one place that knows who asked, under which decision, in which request and trace, and
//! for how long it has been worked on.

use pavior_core::audit::{Actor, AuditClass, AuditEvent, Cause, Change, Object, Outcome, Phase};
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
    /// What it was done to.
    pub object: Object,
    /// `ok`, or another status of an outcome.
    pub status: &'static str,
    /// Name of the gRPC code, or a reason.
    pub code: String,
    /// What changed.
    pub change: Option<Change>,
    /// One sentence for people.
    pub summary: String,
}

impl Permit {
    /// The event that tells what was done under this permit. Its class is A: the act fails if it cannot be kept.
    pub fn event(&self, act: Act, ids: &dyn IdGen, clock: &dyn Clock) -> AuditEvent {
        let Act { action, phase, object, status, code, change, summary } = act;
        AuditEvent {
            event_id: ids.uuid(),
            time: clock.now(),
            class: AuditClass::A,
            action,
            phase,
            actor: self.actor(),
            object,
            cause: self.cause(),
            decision: self.decision().cloned(),
            outcome: Outcome { status: status.to_owned(), code, duration_ms: self.elapsed_ms() },
            change,
            summary,
        }
    }

    /// Who acts: the principal, and through what when that is not the gateway alone.
    pub fn actor(&self) -> Actor {
        let mut actor = Actor::of(self.principal());
        let direct = [GATEWAY, &self.principal().subject].contains(&self.caller());
        if actor.via.is_none() && !direct {
            actor.via = Some(pavior_core::principal::service_name(self.caller()));
        }
        actor
    }

    /// The request and the trace that the call belongs to.
    pub fn cause(&self) -> Cause {
        Cause {
            request_id: self.request_id().to_owned(),
            trace_id: self.trace_id().map(str::to_owned),
            parent_event: None,
        }
    }
}
