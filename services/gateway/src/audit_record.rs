//! What the gateway records: calls that were denied, and answers that may not be given without a record.

use http::Response;
use pavior_core::audit::{Affected, AuditClass, AuditEvent, Cause, Outcome, PrincipalRef, Status as Ended};
use pavior_core::principal::INSTALLATION;
use pavior_rpc::problem::{ErrorReason, Problem, from_status};
use pavior_rpc::{audit, context};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::admission::{Admitted, Caller};
use crate::denied_status::Denial;
use crate::gateway::Gateway;
use crate::routes::Method;

impl Gateway {
    /// A call that policy, or a missing right, has refused.
    pub(crate) fn record_denial(
        &self,
        caller: &Caller,
        method: &Method,
        denial: Denial,
        status: &Status,
        begin: Instant,
    ) {
        let summary = format!("`{}` on `{}` was denied", method.action, denial.resource);
        let mut event = self.event(caller, method, denial.resource, begin);
        event.decision = denial.decision;
        event.summary = summary;
        event.outcome = Outcome {
            duration: event.outcome.duration,
            ..Outcome::error(Ended::Denied, audit::code(status.code()), from_status(status).reason)
        };
        // In the log of the caller's own organization: nobody writes into the logs of others, or makes new ones.
        self.audit_queue.push(&caller.principal.organization, event);
    }

    /// The answer is given only when its record is queued.
    #[allow(clippy::result_large_err)]
    pub(crate) fn record_access(
        &self,
        caller: &Caller,
        method: &Method,
        admitted: &Admitted,
        response: &Result<Response<Body>, Status>,
        begin: Instant,
    ) -> Result<(), Status> {
        let failed = match response {
            Ok(response) => Status::from_header_map(response.headers()).filter(|s| s.code() != Code::Ok),
            Err(status) => Some(status.clone()),
        };
        let resource = admitted.resource.as_ref();
        let name = resource.map(|resource| resource.name.clone()).unwrap_or_default();
        let summary = format!("`{}` on `{name}`", method.action);
        let mut event = self.event(caller, method, name, begin);
        event.decision = admitted.decision.clone();
        event.summary = summary;
        if let Some(status) = failed {
            event.outcome = Outcome {
                duration: event.outcome.duration,
                ..Outcome::error(Ended::Failed, audit::code(status.code()), from_status(&status).reason)
            };
        }
        let organization = resource.map_or(INSTALLATION, |resource| &resource.organization);
        if self.audit_queue.push(organization, event) {
            return Ok(());
        }
        let text = "the call must be recorded, and too many records wait for the audit service";
        Err(Problem::unavailable(text).with_reason(ErrorReason::AuditUnavailable).into())
    }

    fn event(&self, caller: &Caller, method: &Method, name: String, begin: Instant) -> AuditEvent {
        let (call_id, trace_id) = context::with_current(|context| {
            context.map(|context| (context.request_id.clone(), context.trace_id())).unwrap_or_default()
        });
        let principal = PrincipalRef::of(&caller.principal);
        AuditEvent {
            audit_class: AuditClass::BestEffort,
            target: (!name.is_empty()).then(|| Affected::new(&method.resource_type, name)),
            cause: Cause { call_id, trace_id: trace_id.unwrap_or_default(), ..Cause::default() },
            outcome: Outcome { duration: Some(begin.elapsed()), ..Outcome::ok(Ended::Succeeded) },
            ..AuditEvent::new(self.ids.uuid(), self.clock.now(), &method.action, principal)
        }
    }
}
