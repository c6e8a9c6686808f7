//! Audit events on the wire, and the one way in which they get to the audit service.

mod ship;

use pavior_core::audit::{Actor, AuditClass, AuditEvent, Cause, Change, DecisionRef, Object, Outcome, Phase};
use pavior_core::digest::canonical_json;
use pavior_proto::pavior::audit::v1 as pb;

use crate::convert;
pub use ship::{AuditSink, MAX_CALL_BYTES, Producer, Row, ShipError, Shipped};

/// An event as the wire has it.
pub fn encode(event: AuditEvent) -> pb::AuditEvent {
    use pb::audit_event as wire;
    let AuditEvent {
        event_id,
        time,
        class,
        action,
        phase,
        actor,
        object,
        cause,
        decision,
        outcome,
        change,
        summary,
    } = event;
    let Actor { kind, reference, via, session } = actor;
    let Object { r#type, name, project } = object;
    let Cause { request_id, trace_id, parent_event } = cause;
    let Outcome { status, code, duration_ms } = outcome;
    let class = match class {
        AuditClass::A => wire::AuditClass::A,
        AuditClass::B => wire::AuditClass::B,
        AuditClass::C => wire::AuditClass::C,
    };
    let phase = match phase {
        Phase::Intent => wire::Phase::Intent,
        Phase::Outcome => wire::Phase::Outcome,
    };
    pb::AuditEvent {
        event_id: event_id.to_string(),
        event_time: Some(convert::to_timestamp(time)),
        audit_class: class.into(),
        action,
        phase: phase.into(),
        actor: Some(wire::Actor {
            kind,
            reference,
            via: via.unwrap_or_default(),
            session: session.unwrap_or_default(),
        }),
        object: Some(wire::Object { r#type, name, project: project.unwrap_or_default() }),
        cause: Some(wire::Cause {
            request_id,
            trace_id: trace_id.unwrap_or_default(),
            parent_event: parent_event.map(|id| id.to_string()).unwrap_or_default(),
        }),
        decision: decision.map(encode_decision),
        outcome: Some(wire::Outcome {
            status,
            code,
            duration_ms: i64::try_from(duration_ms).unwrap_or(i64::MAX),
        }),
        change: change.map(encode_change),
        summary,
    }
}

fn encode_decision(decision: DecisionRef) -> pb::audit_event::DecisionReference {
    let DecisionRef { id, effect, policy_revision, policies, approvals } = decision;
    pb::audit_event::DecisionReference { id, effect, policy_revision, policies, approvals }
}

fn encode_change(change: Change) -> pb::audit_event::Change {
    let Change { params_digest, plan_digest, before, after } = change;
    pb::audit_event::Change {
        params_digest: params_digest.unwrap_or_default(),
        plan_digest: plan_digest.unwrap_or_default(),
        before_json: before.as_ref().map(canonical_json).unwrap_or_default(),
        after_json: after.as_ref().map(canonical_json).unwrap_or_default(),
    }
}

/// An event that cannot be read from the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("audit event: `{0}` is missing or malformed")]
pub struct EventError(pub &'static str);

/// The way back, for the audit service.
pub fn decode(event: pb::AuditEvent) -> Result<AuditEvent, EventError> {
    use pb::audit_event as wire;
    let class = match wire::AuditClass::try_from(event.audit_class) {
        Ok(wire::AuditClass::A) => AuditClass::A,
        Ok(wire::AuditClass::B) => AuditClass::B,
        Ok(wire::AuditClass::C) => AuditClass::C,
        _ => return Err(EventError("audit_class")),
    };
    let phase = match wire::Phase::try_from(event.phase) {
        Ok(wire::Phase::Intent) => Phase::Intent,
        Ok(wire::Phase::Outcome) => Phase::Outcome,
        _ => return Err(EventError("phase")),
    };
    let some = |text: String| (!text.is_empty()).then_some(text);
    let wire::Actor { kind, reference, via, session } = event.actor.ok_or(EventError("actor"))?;
    let wire::Object { r#type, name, project } = event.object.ok_or(EventError("object"))?;
    let wire::Cause { request_id, trace_id, parent_event } = event.cause.unwrap_or_default();
    let wire::Outcome { status, code, duration_ms } = event.outcome.ok_or(EventError("outcome"))?;
    let parent_event = some(parent_event).map(|id| uuid::Uuid::parse_str(&id)).transpose();
    let time = event.event_time.as_ref().ok_or(EventError("event_time"))?;
    Ok(AuditEvent {
        event_id: uuid::Uuid::parse_str(&event.event_id).map_err(|_| EventError("event_id"))?,
        time: convert::from_timestamp(time).map_err(|_| EventError("event_time"))?,
        class,
        action: some(event.action).ok_or(EventError("action"))?,
        phase,
        actor: Actor { kind, reference, via: some(via), session: some(session) },
        object: Object { r#type, name, project: some(project) },
        cause: Cause {
            request_id,
            trace_id: some(trace_id),
            parent_event: parent_event.map_err(|_| EventError("cause.parent_event"))?,
        },
        decision: event.decision.map(|decision| {
            let wire::DecisionReference { id, effect, policy_revision, policies, approvals } = decision;
            DecisionRef { id, effect, policy_revision, policies, approvals }
        }),
        outcome: Outcome {
            status,
            code,
            duration_ms: u64::try_from(duration_ms).map_err(|_| EventError("outcome.duration_ms"))?,
        },
        change: event.change.map(decode_change).transpose()?,
        summary: event.summary,
    })
}

fn decode_change(change: pb::audit_event::Change) -> Result<Change, EventError> {
    let pb::audit_event::Change { params_digest, plan_digest, before_json, after_json } = change;
    let some = |text: String| (!text.is_empty()).then_some(text);
    let value = |json: &[u8], field: &'static str| match json {
        [] => Ok(None),
        json => serde_json::from_slice(json).map(Some).map_err(|_| EventError(field)),
    };
    Ok(Change {
        params_digest: some(params_digest),
        plan_digest: some(plan_digest),
        before: value(&before_json, "change.before_json")?,
        after: value(&after_json, "change.after_json")?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_survive_the_wire() {
        let event = AuditEvent {
            event_id: uuid::Uuid::from_u128(7),
            time: time::macros::datetime!(2026-03-01 10:00:00.123456 UTC),
            class: AuditClass::A,
            action: "catalog.components.create".into(),
            phase: Phase::Outcome,
            actor: Actor {
                kind: "user".into(),
                reference: "organizations/acme/users/alice".into(),
                ..Actor::default()
            },
            object: Object { name: "organizations/beta".into(), ..Object::default() },
            cause: Cause { parent_event: Some(uuid::Uuid::from_u128(3)), ..Cause::default() },
            decision: Some(DecisionRef { id: "d".into(), policies: vec!["p".into()], ..Default::default() }),
            outcome: Outcome { status: "ok".into(), code: "OK".into(), duration_ms: 3 },
            change: Some(Change { after: Some(json!({"b": 1.5, "a": [1, null]})), ..Change::default() }),
            summary: "s".into(),
        };
        let wire = encode(event.clone());
        assert_eq!(wire.change.as_ref().unwrap().after_json, br#"{"a":[1,null],"b":1.5}"#);
        assert_eq!(decode(wire).unwrap(), event);
        let mut unknown = encode(event.clone());
        unknown.phase = 9;
        assert_eq!(decode(unknown), Err(EventError("phase")));
        let mut broken = encode(event);
        broken.change.as_mut().unwrap().before_json = b"{".to_vec();
        assert_eq!(decode(broken), Err(EventError("change.before_json")));
    }
}
