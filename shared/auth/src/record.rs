//! The audit event of a call: the one place that knows who asked, under which decision, in which call and trace, and
//! for how long it has been worked on.

use pavior_core::audit::{Affected, AuditEvent, Cause, Change, Outcome, Phase, PrincipalRef};
use pavior_core::clock::Clock;
use pavior_core::id_gen::IdGen;
use pavior_core::principal::service_name;

use crate::permit::{Permit, Standing};

/// What a service did for a caller.
#[derive(Debug, Clone)]
pub struct Act {
    /// The action, such as `identity.groups.create`.
    pub action: String,
    /// Whether it is announced or done.
    pub phase: Phase,
    /// What it was done to.
    pub target: Affected,
    /// What else it changed.
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
        let Act { action, phase, target, affected, outcome, request_id, change, summary } = act;
        AuditEvent {
            phase,
            target: Some(target),
            affected,
            cause: Cause { request_id, ..self.cause() },
            decision: self.decision().cloned(),
            outcome: Outcome { duration: self.elapsed(), ..outcome },
            change,
            summary,
            ..AuditEvent::new(ids.uuid(), clock.now(), &action, self.acting())
        }
    }

    /// Who acts. A service that works on a call of the gateway's hands it on; one that says for whom it acts without
    /// such a call goes on with what was answered before, and is named.
    pub fn acting(&self) -> PrincipalRef {
        let via = match self.standing() {
            Standing::Claimed => service_name(self.caller()),
            Standing::Gateway | Standing::Itself | Standing::Proven => String::new(),
        };
        PrincipalRef { via, ..PrincipalRef::of(self.principal()) }
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
