//! The audit events of provisioning. They say what happened to what, never what a secret or an input was.

use pavior_auth::{Act, Permit};
use pavior_core::audit::{
    Affected, AuditEvent, Cause, Change, Code, DecisionRef, Effect, Outcome, Phase, PrincipalKind,
    PrincipalRef, Status,
};
use pavior_core::digest::Digest;
use pavior_core::principal::{Principal, service_name};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::entity::{environment, operation, step};
use crate::domain::failure::{Failure, FailureCode, FailureReason};
use crate::domain::names;
use crate::domain::operation::{OperationState, StepState};
use crate::domain::plan::{Action, Plan};
use crate::store::prelude::*;

fn affected(kind: &str, name: &str) -> Affected {
    Affected {
        r#type: format!("provisioning.pavior.dev/{kind}"),
        name: name.to_owned(),
        project: names::project_of(name),
    }
}

/// What an operation, or its plan, is about: of the project that this is carried out in.
fn affected_in(project: &str, kind: &str, name: &str) -> Affected {
    Affected { project: project.to_owned(), ..affected(kind, name) }
}

fn kind_of(target: &str) -> &'static str {
    let mut parts = target.rsplit('/');
    parts.next();
    match parts.next() {
        Some("organizations") => "Organization",
        Some("projects") => "Project",
        Some("environments") => "Environment",
        Some("pipelines") => "Pipeline",
        Some("operations") => "Operation",
        Some("deployments") => "Deployment",
        _ => "Resource",
    }
}

/// Who asks for a change of an operation, and under which decision.
#[derive(Debug, Clone)]
pub struct Caller {
    name: String,
    acting: PrincipalRef,
    action: String,
    cause: Cause,
    decision: Option<DecisionRef>,
}

impl Caller {
    /// The caller of a request, which has this `request_id`, if any.
    pub fn of(permit: &Permit, action: &str, request_id: &str) -> Self {
        Self {
            name: permit.principal().name.clone(),
            acting: permit.acting(),
            action: action.to_owned(),
            cause: Cause { request_id: request_id.to_owned(), ..permit.cause() },
            decision: permit.decision().cloned(),
        }
    }

    /// Somebody who was let in elsewhere.
    pub fn new(principal: Principal, action: &str) -> Self {
        let acting = PrincipalRef::of(&principal);
        Self {
            name: principal.name,
            acting,
            action: action.to_owned(),
            cause: Cause::default(),
            decision: None,
        }
    }

    /// The caller's resource name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Something that had to be recorded was done to this.
fn done(this: &Db, action: &str, acting: PrincipalRef, target: Affected) -> AuditEvent {
    AuditEvent { target: Some(target), ..AuditEvent::new(this.ids.uuid(), this.now(), action, acting) }
}

/// Somebody changed an operation.
pub(crate) fn verb_event(
    this: &Db,
    caller: &Caller,
    before: &operation::Model,
    after: &operation::Model,
    what: &str,
) -> AuditEvent {
    let shown = |op: &operation::Model| {
        json!({
            "state": op.state.as_str(),
            "cancelRequested": op.cancel_requested,
            "deleted": op.delete_time.is_some(),
        })
    };
    let target = affected_in(&after.project, "Operation", &after.name);
    AuditEvent {
        cause: Cause { operation: after.name.clone(), ..caller.cause.clone() },
        decision: caller.decision.clone(),
        change: Some(Change {
            plan_digest: after.plan_digest.clone(),
            before: Some(shown(before)),
            after: Some(shown(after)),
            ..Change::default()
        }),
        summary: format!("operation `{}` was {what}", names::last(&after.name)),
        ..done(this, &caller.action, caller.acting.clone(), target)
    }
}

/// What is told of a plan, and of what came of it.
fn planned(plan_digest: &str, after: Value) -> Option<Change> {
    Some(Change { plan_digest: plan_digest.to_owned(), after: Some(after), ..Change::default() })
}

/// What a caller did, or tried to do.
fn act(action: &str, target: Affected, outcome: Outcome, request_id: &str, summary: String) -> Act {
    Act {
        action: action.to_owned(),
        phase: Phase::Outcome,
        target,
        affected: Vec::new(),
        outcome,
        request_id: request_id.to_owned(),
        change: None,
        summary,
    }
}

fn acting(op: &operation::Model) -> PrincipalRef {
    PrincipalRef::of(&op.principal.0)
}

/// Who acts when the operation goes on after its request was answered.
fn going_on(op: &operation::Model) -> PrincipalRef {
    let acting = acting(op);
    let via = match acting.kind {
        PrincipalKind::Service => String::new(),
        _ => service_name("provisioning"),
    };
    PrincipalRef { via, ..acting }
}

/// Why something happened that is a part of an operation.
fn cause(op: &operation::Model) -> Cause {
    Cause { request_id: op.request_id.clone(), operation: op.name.clone(), ..Cause::default() }
}

pub(crate) fn decision(decision: &Value) -> Option<DecisionRef> {
    let text = |key: &str| decision.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if text("name").is_empty() {
        return None;
    }
    let reasons = decision.get("reasons").and_then(Value::as_array).into_iter().flatten();
    let rule_ids = reasons.filter_map(|reason| reason.get("ruleId").and_then(Value::as_str));
    Some(DecisionRef {
        decision: text("name"),
        effect: Effect::parse(text("effect").trim_start_matches("EFFECT_")).unwrap_or_default(),
        policies_digest: text("policiesDigest"),
        rule_ids: DecisionRef::each_once(rule_ids),
        approvals: Vec::new(),
    })
}

/// The operation was accepted: what is intended.
pub(crate) fn accepted_event(
    this: &Db,
    call: Option<&Permit>,
    op: &operation::Model,
    plan: &Plan,
    request_digest: Digest,
) -> AuditEvent {
    let of_call = call.map(Permit::cause).unwrap_or_default();
    AuditEvent {
        phase: Phase::Intent,
        cause: Cause { call_id: of_call.call_id, trace_id: of_call.trace_id, ..cause(op) },
        decision: decision(&plan.decision),
        outcome: Outcome { duration: call.and_then(Permit::elapsed), ..Outcome::ok(Status::Accepted) },
        change: Some(Change {
            request_digest: request_digest.to_string(),
            plan_digest: plan.digest.clone(),
            after: Some(
                json!({ "operation": op.name, "state": op.state.as_str(), "decisions": plan.decisions() }),
            ),
            ..Change::default()
        }),
        summary: plan.summary.clone(),
        ..done(this, &op.action, acting(op), affected_in(&op.project, kind_of(&op.target), &op.target))
    }
}

/// The operation is done, or waits for an operator.
pub(crate) fn ended_event(this: &Db, op: &operation::Model) -> AuditEvent {
    let outcome = match op.state {
        OperationState::Succeeded => Outcome::ok(Status::Succeeded),
        state => {
            let failure = op.error.as_ref().map_or(Failure::UNTOLD, |error| error.0.clone());
            let (code, reason) = failure.told(state == OperationState::Stuck);
            Outcome::error(Status::Failed, code, reason.as_str())
        }
    };
    AuditEvent {
        cause: cause(op),
        outcome: Outcome { duration: (this.now() - op.create_time).try_into().ok(), ..outcome },
        change: planned(
            &op.plan_digest,
            json!({ "operation": op.name, "state": op.state.as_str(), "approvals": op.approvals.0 }),
        ),
        summary: format!(
            "operation `{}` {}",
            names::last(&op.name),
            match op.end_time {
                Some(_) => format!("ended as {}", op.state),
                None => format!("is {}", op.state),
            }
        ),
        ..done(this, &op.action, going_on(op), affected_in(&op.project, kind_of(&op.target), &op.target))
    }
}

/// A resource changed, or failed to.
pub(crate) fn step_event(this: &Db, op: &operation::Model, step: &step::Model) -> AuditEvent {
    let verb = match (step.action, step.state) {
        (_, StepState::Undone | StepState::UndoStuck) => "undo",
        (Action::Create, _) => "create",
        (Action::Update, _) => "update",
        (Action::Replace, _) => "replace",
        (Action::Delete, _) => "delete",
        (Action::Run | Action::Noop, _) => "run",
    };
    let outcome = match step.state {
        StepState::Done | StepState::Undone => Outcome::ok(Status::Succeeded),
        _ => {
            let code = step.error.as_ref().map_or(FailureCode::None, |error| error.0.code);
            Outcome::error(Status::Failed, code.status(), FailureReason::StepFailed.as_str())
        }
    };
    let action = format!("provisioning.resources.{verb}");
    AuditEvent {
        cause: cause(op),
        outcome,
        change: planned(
            &op.plan_digest,
            json!({ "operation": op.name, "step": step.name, "state": step.state.as_str() }),
        ),
        summary: format!("step `{}` is {}", step.name, step.state),
        ..done(this, &action, going_on(op), affected_in(&op.project, "Resource", &step.resource))
    }
}

/// An environment stands longer than its copy said, because the database was set back.
pub(crate) fn spared_event(
    this: &Db,
    operator: PrincipalRef,
    row: &environment::Model,
    expire_time: Option<OffsetDateTime>,
) -> AuditEvent {
    let shown = |time: Option<OffsetDateTime>| json!({ "expireTime": time.map(pavior_store::micros) });
    AuditEvent {
        change: Some(Change {
            before: Some(shown(row.expire_time)),
            after: Some(shown(expire_time)),
            ..Change::default()
        }),
        summary: format!(
            "the end of environment `{}` was put off: the database was set back",
            names::last(&row.name)
        ),
        ..done(this, "platform.restore", operator, affected("Environment", &row.name))
    }
}

/// Policy said no to a plan.
pub fn denied_event(
    this: &Db,
    permit: &Permit,
    request_id: &str,
    plan: &Plan,
    reason: &'static str,
) -> AuditEvent {
    let denied = refusal(reason);
    unchanged_event(this, permit, request_id, plan, denied, format!("policy denied: {}", plan.summary))
}

/// As policy says no: to the caller, or to what is asked.
fn refusal(reason: &'static str) -> Outcome {
    let code = if reason == "ACCESS_DENIED" { Code::PermissionDenied } else { Code::FailedPrecondition };
    Outcome::error(Status::Denied, code, reason)
}

/// A request that policy said no to.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// The action.
    pub action: &'a str,
    /// What it is recorded to be about, by resource name.
    pub target: &'a str,
    /// What it was asked about.
    pub asked: &'a str,
    /// Why.
    pub reason: &'static str,
}

/// Policy said no to a request before it was planned.
pub fn refused_event(
    this: &Db,
    permit: &Permit,
    request_id: &str,
    refused: &Refusal<'_>,
    decision: &Value,
) -> AuditEvent {
    let Refusal { action, target, asked, reason } = *refused;
    let summary = format!("policy denied `{action}` on `{asked}`");
    let act = act(action, affected(kind_of(target), target), refusal(reason), request_id, summary);
    let event = permit.event(act, this.ids.as_ref(), this.clock.as_ref());
    AuditEvent { decision: self::decision(decision), ..event }
}

/// A plan was looked at and not carried out.
pub fn planned_event(this: &Db, permit: &Permit, request_id: &str, plan: &Plan) -> AuditEvent {
    let planned = Outcome::ok(Status::Planned);
    unchanged_event(this, permit, request_id, plan, planned, format!("only planned: {}", plan.summary))
}

/// A plan was kept, or is carried out.
pub(super) fn plan_event(
    this: &Db,
    permit: &Permit,
    request_id: &str,
    plan: &Plan,
    what: &str,
) -> AuditEvent {
    let target = affected_in(&plan.project(), "Plan", &names::plan(&plan.organization, &plan.id));
    let summary = format!("{what}: {}", plan.summary);
    let after = json!({ "action": plan.action, "target": plan.target, "decisions": plan.decisions() });
    let act = act(permit.action(), target, Outcome::ok(Status::Succeeded), request_id, summary);
    let act = Act { change: planned(&plan.digest, after), ..act };
    permit.event(act, this.ids.as_ref(), this.clock.as_ref())
}

fn unchanged_event(
    this: &Db,
    permit: &Permit,
    request_id: &str,
    plan: &Plan,
    outcome: Outcome,
    summary: String,
) -> AuditEvent {
    let target = affected_in(&plan.project(), kind_of(&plan.target), &plan.target);
    let act = act(&plan.action, target, outcome, request_id, summary);
    let act = Act { change: planned(&plan.digest, json!({ "decisions": plan.decisions() })), ..act };
    let event = permit.event(act, this.ids.as_ref(), this.clock.as_ref());
    // What was decided about the plan, which is more than that the caller was let in.
    AuditEvent { decision: decision(&plan.decision), ..event }
}

impl Db {
    /// Records what changed nothing here: a denial, a plan that was looked at, a push.
    pub async fn record_unscoped(&self, event: AuditEvent) -> crate::error::Result<()> {
        self.change(event, |_, _, event| Box::pin(async { Ok(Recorded::new((), event.clone())) })).await
    }
}
