//! The audit events of provisioning. They say what happened to what, never what a secret or an input was.

use pavior_auth::{Act, Permit};
use pavior_core::audit::{Actor, AuditClass, AuditEvent, Cause, Change, DecisionRef, Object, Outcome, Phase};
use pavior_core::principal::Principal;
use pavior_store::Recorded;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::Db;
use super::entity::{environment, operation, step};
use crate::domain::names;
use crate::domain::plan::{Action, Plan};

fn object(kind: &str, name: &str) -> Object {
    let project = names::project_of(name);
    Object {
        r#type: format!("provisioning.pavior.dev/{kind}"),
        name: name.to_owned(),
        project: (!project.is_empty()).then_some(project),
    }
}

fn kind_of(target: &str) -> &'static str {
    let mut parts = target.rsplit('/');
    parts.next();
    match parts.next() {
        Some("projects") => "Project",
        Some("environments") => "Environment",
        Some("pipelines") => "Pipeline",
        Some("operations") => "Operation",
        _ => "Resource",
    }
}

/// Who asks for a change of an operation, and under which decision.
#[derive(Debug, Clone)]
pub struct Caller {
    name: String,
    actor: Actor,
    action: String,
    cause: Cause,
    decision: Option<DecisionRef>,
}

impl Caller {
    /// The caller of a request.
    pub fn of(permit: &Permit, action: &str) -> Self {
        Self {
            name: permit.principal().name.clone(),
            actor: permit.actor(),
            action: action.to_owned(),
            cause: permit.cause(),
            decision: permit.decision().cloned(),
        }
    }

    /// Somebody who was let in elsewhere.
    pub fn new(principal: Principal, action: &str) -> Self {
        let actor = Actor::of(&principal);
        Self {
            name: principal.name,
            actor,
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

/// Somebody changed an operation.
pub(crate) fn verb_event(
    this: &Db,
    caller: &Caller,
    before: &operation::Model,
    after: &operation::Model,
    summary: String,
) -> AuditEvent {
    let shown = |op: &operation::Model| {
        json!({
            "state": op.state,
            "cancel_requested": op.cancel_requested,
            "deleted": op.delete_time.is_some(),
        })
    };
    AuditEvent {
        event_id: this.ids.uuid(),
        time: this.now(),
        class: AuditClass::A,
        action: caller.action.clone(),
        phase: Phase::Outcome,
        actor: caller.actor.clone(),
        object: Object {
            project: (!after.project.is_empty()).then(|| after.project.clone()),
            ..object("Operation", &after.name)
        },
        cause: caller.cause.clone(),
        decision: caller.decision.clone(),
        outcome: Outcome { status: "ok".into(), code: "OK".into(), duration_ms: 0 },
        change: Some(Change {
            params_digest: None,
            plan_digest: Some(after.plan_digest.clone()),
            before: Some(shown(before)),
            after: Some(shown(after)),
        }),
        summary,
    }
}

fn actor(op: &operation::Model) -> Actor {
    match serde_json::from_value::<Principal>(op.principal.clone()) {
        Ok(principal) => Actor::of(&principal),
        Err(_) => Actor { kind: "user".into(), reference: op.requester.clone(), via: None, session: None },
    }
}

pub(crate) fn decision(decision: &Value, approvals: &Value) -> Option<DecisionRef> {
    let text = |key: &str| decision.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if text("name").is_empty() {
        return None;
    }
    let policies = decision
        .get("reasons")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|reason| reason.get("policyId").and_then(Value::as_str).map(str::to_owned))
        .collect();
    Some(DecisionRef {
        id: text("name"),
        effect: text("effect").trim_start_matches("EFFECT_").to_lowercase(),
        policy_revision: text("policyRevision"),
        policies,
        approvals: super::journal::texts(approvals),
    })
}

/// The operation was accepted: what is intended.
pub(crate) fn accepted_event(
    this: &Db,
    call: Option<&Permit>,
    op: &operation::Model,
    plan: &Plan,
) -> AuditEvent {
    let trace_id = call.and_then(Permit::trace_id).map(str::to_owned);
    let duration_ms = call.map(Permit::elapsed_ms).unwrap_or_default();
    AuditEvent {
        event_id: this.ids.uuid(),
        time: this.now(),
        class: AuditClass::A,
        action: op.action.clone(),
        phase: Phase::Intent,
        actor: actor(op),
        object: object(kind_of(&op.target), &op.target),
        cause: Cause { request_id: op.request_id.clone(), trace_id, parent_event: None },
        decision: decision(&plan.decision, &Value::Null),
        outcome: Outcome { status: "accepted".into(), code: "OK".into(), duration_ms },
        change: Some(Change {
            params_digest: Some(pavior_core::digest::sha256_hex(&pavior_core::digest::canonical_json(
                &plan.parameters,
            ))),
            plan_digest: Some(plan.digest.clone()),
            before: None,
            after: Some(json!({ "operation": op.name, "state": op.state, "decisions": plan.decisions() })),
        }),
        summary: plan.summary.clone(),
    }
}

/// The operation came to an end.
pub(crate) fn ended_event(this: &Db, op: &operation::Model, approvals: &Value) -> AuditEvent {
    let ok = op.state == "SUCCEEDED";
    let reason =
        op.error.as_ref().and_then(|error| error.get("reason")).and_then(Value::as_str).unwrap_or("OK");
    let took = (this.now() - op.create_time).whole_milliseconds();
    AuditEvent {
        event_id: this.ids.uuid(),
        time: this.now(),
        class: AuditClass::A,
        action: op.action.clone(),
        phase: Phase::Outcome,
        actor: actor(op),
        object: object(kind_of(&op.target), &op.target),
        cause: Cause { request_id: op.request_id.clone(), trace_id: None, parent_event: None },
        decision: None,
        outcome: Outcome {
            status: if ok { "ok" } else { "failed" }.into(),
            code: if ok { "OK" } else { reason }.into(),
            duration_ms: u64::try_from(took).unwrap_or_default(),
        },
        change: Some(Change {
            params_digest: None,
            plan_digest: Some(op.plan_digest.clone()),
            before: None,
            after: Some(json!({ "operation": op.name, "state": op.state, "approvals": approvals })),
        }),
        summary: format!("operation `{}` ended as {}", names::last(&op.name), op.state),
    }
}

/// A resource changed, or failed to.
pub(crate) fn step_event(this: &Db, op: &operation::Model, step: &step::Model) -> AuditEvent {
    let verb = match (Action::parse(&step.action), step.state.as_str()) {
        (_, "UNDONE" | "UNDO_STUCK") => "undo",
        (Some(Action::Create), _) => "create",
        (Some(Action::Update), _) => "update",
        (Some(Action::Replace), _) => "replace",
        (Some(Action::Delete), _) => "delete",
        _ => "run",
    };
    let ok = matches!(step.state.as_str(), "DONE" | "UNDONE");
    let code = step.error.as_ref().and_then(|error| error.get("code")).and_then(Value::as_str);
    AuditEvent {
        event_id: this.ids.uuid(),
        time: this.now(),
        class: AuditClass::B,
        action: format!("provisioning.resources.{verb}"),
        phase: Phase::Outcome,
        actor: actor(op),
        object: object("Resource", &step.resource),
        cause: Cause { request_id: op.request_id.clone(), trace_id: None, parent_event: None },
        decision: None,
        outcome: Outcome {
            status: if ok { "ok" } else { "failed" }.into(),
            code: if ok { "OK" } else { code.unwrap_or("FAILED") }.into(),
            duration_ms: 0,
        },
        change: Some(Change {
            params_digest: None,
            plan_digest: Some(op.plan_digest.clone()),
            before: None,
            after: Some(json!({ "operation": op.name, "step": step.name, "state": step.state })),
        }),
        summary: format!("step `{}` is {}", step.name, step.state),
    }
}

/// An environment stands longer than its copy said, because the database was set back.
pub(crate) fn spared_event(
    this: &Db,
    actor: Actor,
    row: &environment::Model,
    expire_time: Option<OffsetDateTime>,
) -> AuditEvent {
    let shown = |time: Option<OffsetDateTime>| json!({ "expire_time": time.map(pavior_store::micros) });
    AuditEvent {
        event_id: this.ids.uuid(),
        time: this.now(),
        class: AuditClass::A,
        action: "platform.restore".to_owned(),
        phase: Phase::Outcome,
        actor,
        object: object("Environment", &row.name),
        cause: Cause::default(),
        decision: None,
        outcome: Outcome { status: "ok".into(), code: "OK".into(), duration_ms: 0 },
        change: Some(Change {
            before: Some(shown(row.expire_time)),
            after: Some(shown(expire_time)),
            ..Change::default()
        }),
        summary: format!(
            "the end of environment `{}` was put off: the database was set back",
            names::last(&row.name)
        ),
    }
}

/// Policy said no to a plan.
pub fn denied_event(this: &Db, permit: &Permit, plan: &Plan) -> AuditEvent {
    unchanged_event(
        this,
        permit,
        plan,
        ("denied", "GUARDRAIL_DENIED"),
        format!("policy denied: {}", plan.summary),
    )
}

/// A plan was looked at and not carried out.
pub fn planned_event(this: &Db, permit: &Permit, plan: &Plan) -> AuditEvent {
    unchanged_event(this, permit, plan, ("planned", "OK"), format!("only planned: {}", plan.summary))
}

fn unchanged_event(
    this: &Db,
    permit: &Permit,
    plan: &Plan,
    (status, code): (&'static str, &str),
    summary: String,
) -> AuditEvent {
    let act = Act {
        action: plan.action.clone(),
        phase: Phase::Outcome,
        object: object(kind_of(&plan.target), &plan.target),
        status,
        code: code.to_owned(),
        change: Some(Change {
            plan_digest: Some(plan.digest.clone()),
            after: Some(json!({ "decisions": plan.decisions() })),
            ..Change::default()
        }),
        summary,
    };
    let event = permit.event(act, this.ids.as_ref(), this.clock.as_ref());
    // What was decided about the plan, which is more than that the caller was let in.
    AuditEvent { decision: decision(&plan.decision, &Value::Null), ..event }
}

impl Db {
    /// Records what changed nothing here: a denial, a plan that was looked at, a push.
    pub async fn record(&self, event: AuditEvent) -> crate::error::Result<()> {
        self.store
            .change(&self.outbox, move |_| {
                let event = event.clone();
                Box::pin(async move { Ok(Recorded::new((), event)) })
            })
            .await
    }
}
