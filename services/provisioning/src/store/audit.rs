//! The audit events of provisioning. They say what happened to what, never what a secret or an input was.

use pavior_core::audit::{Actor, AuditClass, AuditEvent, Cause, Change, DecisionRef, Object, Outcome, Phase};
use pavior_core::principal::Principal;
use pavior_store::Recorded;
use serde_json::{Value, json};

use super::Db;
use super::entity::{operation, step};
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

fn actor(op: &operation::Model) -> Actor {
    match serde_json::from_value::<Principal>(op.principal.clone()) {
        Ok(principal) => Actor::of(&principal),
        Err(_) => Actor { kind: "user".into(), reference: op.requester.clone(), via: None, session: None },
    }
}

pub(crate) fn decision(decision: &Value, approvals: &Value) -> Option<DecisionRef> {
    let text = |key: &str| decision.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if text("id").is_empty() {
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
        id: text("id"),
        effect: text("effect").trim_start_matches("EFFECT_").to_lowercase(),
        policy_revision: text("policyRevision"),
        policies,
        approvals: super::journal::texts(approvals),
    })
}

/// The operation was accepted: what is intended.
pub(crate) fn accepted_event(this: &Db, op: &operation::Model, plan: &Plan) -> AuditEvent {
    AuditEvent {
        event_id: this.ids.uuid(),
        time: this.now(),
        class: AuditClass::A,
        action: op.action.clone(),
        phase: Phase::Intent,
        actor: actor(op),
        object: object(kind_of(&op.target), &op.target),
        cause: Cause { request_id: op.request_id.clone(), trace_id: None, parent_event: None },
        decision: decision(&plan.decision, &Value::Null),
        outcome: Outcome { status: "accepted".into(), code: "OK".into(), duration_ms: 0 },
        change: Some(Change {
            params_digest: Some(pavior_core::digest::sha256_hex(&pavior_core::digest::canonical_json(
                &plan.parameters,
            ))),
            plan_digest: Some(plan.digest.clone()),
            before: None,
            after: Some(json!({ "operation": op.name, "state": op.state })),
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

/// Policy said no to a plan.
pub fn denied_event(this: &Db, principal: &Principal, plan: &Plan, request_id: &str) -> AuditEvent {
    AuditEvent {
        event_id: this.ids.uuid(),
        time: this.now(),
        class: AuditClass::A,
        action: plan.action.clone(),
        phase: Phase::Outcome,
        actor: Actor::of(principal),
        object: object(kind_of(&plan.target), &plan.target),
        cause: Cause { request_id: request_id.to_owned(), trace_id: None, parent_event: None },
        decision: decision(&plan.decision, &Value::Null),
        outcome: Outcome { status: "denied".into(), code: "GUARDRAIL_DENIED".into(), duration_ms: 0 },
        change: Some(Change {
            params_digest: None,
            plan_digest: Some(plan.digest.clone()),
            before: None,
            after: None,
        }),
        summary: format!("policy denied: {}", plan.summary),
    }
}

impl Db {
    /// Records a denial; nothing else is written.
    pub async fn record_denial(&self, event: AuditEvent) -> crate::error::Result<()> {
        self.store
            .change(&self.outbox, move |_| {
                let event = event.clone();
                Box::pin(async move { Ok(Recorded::new((), event)) })
            })
            .await
    }
}
