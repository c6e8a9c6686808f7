//! Ships audit events from an outbox to the audit service.

use pavior_core::audit::{Actor, AuditClass, AuditEvent, Cause, Change, DecisionRef, Object, Outcome, Phase};
use pavior_proto::pavior::audit::v1 as pb;
use pavior_proto::pavior::audit::v1::audit_service_client::AuditServiceClient;
use tonic::Status;

use crate::convert;
use crate::transport::{RetrySafe, Transport};

/// Who appends: sequence numbers have no gap within an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// The service, for example `catalog`.
    pub service: String,
    /// The running instance.
    pub instance: String,
    /// One for each database, or for each start of a service without one.
    pub epoch: String,
}

/// A client of the audit service for producers.
#[derive(Debug, Clone)]
pub struct AuditSink {
    client: AuditServiceClient<Transport>,
}

impl AuditSink {
    /// Over a transport that identifies the calling service.
    pub fn new(transport: Transport) -> Self {
        Self { client: AuditServiceClient::new(transport) }
    }

    /// Appends events in the order of their sequence numbers, and returns the highest that is durable. Repeating a
    /// batch changes nothing, so it is repeated when the service does not answer.
    pub async fn append(&self, producer: &Producer, rows: Vec<(i64, AuditEvent)>) -> Result<i64, Status> {
        let Producer { service, instance, epoch } = producer.clone();
        let events = rows.into_iter().map(|(sequence, event)| sequenced(sequence, event)).collect();
        let message =
            pb::AppendRecordsRequest { producer: Some(pb::Producer { service, instance, epoch }), events };
        let mut request = tonic::Request::new(message);
        request.extensions_mut().insert(RetrySafe);
        let answer = self.client.clone().append_records(request).await?;
        Ok(answer.into_inner().acknowledged_sequence)
    }
}

/// The organization whose log an event belongs to: that of the object, else of the actor, else the platform's (`-`).
pub fn organization(event: &AuditEvent) -> &str {
    let of = |name: &str| -> Option<usize> {
        let rest = name.strip_prefix("organizations/")?;
        let id = rest.split('/').next().unwrap_or_default();
        (!id.is_empty()).then_some(id.len())
    };
    let start = "organizations/".len();
    for name in [&event.object.name, &event.actor.reference] {
        if let Some(length) = of(name) {
            return name.get(start..start + length).unwrap_or("-");
        }
    }
    "-"
}

fn sequenced(sequence: i64, event: AuditEvent) -> pb::SequencedEvent {
    let organization = organization(&event).to_owned();
    pb::SequencedEvent { organization, sequence, event: Some(encode(event)) }
}

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
        before: before.as_ref().map(convert::to_value),
        after: after.as_ref().map(convert::to_value),
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
        change: event.change.map(|change| {
            let wire::Change { params_digest, plan_digest, before, after } = change;
            Change {
                params_digest: some(params_digest),
                plan_digest: some(plan_digest),
                before: before.as_ref().map(convert::from_value),
                after: after.as_ref().map(convert::from_value),
            }
        }),
        summary: event.summary,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_survive_the_wire_and_find_their_organization() {
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
            change: Some(Change { after: Some(json!({"a": [1, null]})), ..Change::default() }),
            summary: "s".into(),
        };
        assert_eq!(decode(encode(event.clone())).unwrap(), event);
        assert_eq!(organization(&event), "beta");
        let mut platform = event.clone();
        platform.object.name = "platform".into();
        assert_eq!(organization(&platform), "acme");
        platform.actor.reference = "system".into();
        assert_eq!(organization(&platform), "-");
        let mut unknown = encode(event);
        unknown.phase = 9;
        assert_eq!(decode(unknown), Err(EventError("phase")));
    }
}
