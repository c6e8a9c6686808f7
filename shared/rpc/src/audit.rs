//! Audit events on the wire, and the one way in which they get to the audit service.

mod ship;

use pavior_core::audit::{
    Affected, AuditClass, AuditEvent, Cause, Change, Code, DecisionRef, Effect, Outcome, Phase,
    PrincipalKind, PrincipalRef, Status,
};
use pavior_core::digest::canonical_json;
use pavior_proto::google::rpc;
use pavior_proto::pavior::audit::v1 as pb;
use pavior_proto::pavior::audit::v1::audit_event as wire;
use pavior_proto::pavior::policy::v1 as policy_pb;
use pavior_proto::pavior::r#type::v1::principal::Kind;

use crate::convert;
pub use ship::{AuditSink, MAX_CALL_BYTES, Producer, Row, ShipError, Shipped};

/// A value of an enum by its word, which is its name without the enum's prefix: the two never differ.
macro_rules! by_word {
    ($wire:ty, $prefix:literal, $core:ty) => {
        impl Word for $core {
            fn wire(self) -> i32 {
                let name = format!("{}{}", $prefix, self.as_str());
                <$wire>::from_str_name(&name).map_or(0, i32::from)
            }

            fn read(number: i32) -> Option<Self> {
                Self::parse(<$wire>::try_from(number).ok()?.as_str_name().strip_prefix($prefix)?)
            }
        }
    };
}

/// An enum of the audit trail that has a twin in the protos.
trait Word: Sized {
    fn wire(self) -> i32;
    fn read(number: i32) -> Option<Self>;
}

by_word!(wire::AuditClass, "AUDIT_CLASS_", AuditClass);
by_word!(wire::Phase, "PHASE_", Phase);
by_word!(wire::outcome::Status, "STATUS_", Status);
by_word!(Kind, "KIND_", PrincipalKind);
by_word!(policy_pb::Effect, "EFFECT_", Effect);
by_word!(rpc::Code, "", Code);

/// A code as the audit trail has it.
pub fn code(code: tonic::Code) -> Code {
    Code::read(code as i32).unwrap_or(Code::Unknown)
}

/// A code of the audit trail as tonic has it.
pub fn tonic_code(code: Code) -> tonic::Code {
    tonic::Code::from_i32(code.wire())
}

/// An event as the wire has it.
pub fn encode(event: AuditEvent) -> pb::AuditEvent {
    let AuditEvent {
        event_id,
        event_time,
        audit_class,
        action,
        phase,
        principal,
        target,
        affected,
        cause,
        decision,
        outcome,
        change,
        summary,
    } = event;
    let PrincipalRef { kind, name, on_behalf_of, via, session_id } = principal;
    let Cause { call_id, request_id, trace_id, operation } = cause;
    let Outcome { status, code, reason, duration } = outcome;
    pb::AuditEvent {
        event_id: event_id.to_string(),
        event_time: Some(convert::to_timestamp(event_time)),
        audit_class: audit_class.wire(),
        action,
        phase: phase.wire(),
        principal: Some(wire::PrincipalReference { kind: kind.wire(), name, on_behalf_of, via, session_id }),
        target: target.map(encode_affected),
        affected: affected.into_iter().map(encode_affected).collect(),
        cause: Some(wire::Cause { call_id, request_id, trace_id, operation }),
        decision: decision.map(encode_decision),
        outcome: Some(wire::Outcome {
            status: status.wire(),
            code: code.wire(),
            reason,
            duration: duration.and_then(|duration| prost_types::Duration::try_from(duration).ok()),
        }),
        change: change.map(encode_change),
        summary,
    }
}

fn encode_affected(affected: Affected) -> wire::AffectedResource {
    let Affected { r#type, name, project } = affected;
    wire::AffectedResource { r#type, name, project }
}

fn encode_decision(decision: DecisionRef) -> wire::DecisionReference {
    let DecisionRef { decision, effect, policies_digest, rule_ids, approvals } = decision;
    wire::DecisionReference { decision, effect: effect.wire(), policies_digest, rule_ids, approvals }
}

fn encode_change(change: Change) -> wire::Change {
    let Change { request_digest, plan_digest, before, after } = change;
    wire::Change {
        request_digest,
        plan_digest,
        before: before.as_ref().map(canonical_json).unwrap_or_default(),
        after: after.as_ref().map(canonical_json).unwrap_or_default(),
    }
}

/// An event that cannot be read from the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("audit event: `{0}` is missing or malformed")]
pub struct EventError(pub &'static str);

/// The way back, for the audit service.
pub fn decode(event: pb::AuditEvent) -> Result<AuditEvent, EventError> {
    let pb::AuditEvent {
        event_id,
        event_time,
        audit_class,
        action,
        phase,
        principal,
        target,
        affected,
        cause,
        decision,
        outcome,
        change,
        summary,
    } = event;
    let wire::PrincipalReference { kind, name, on_behalf_of, via, session_id } =
        principal.ok_or(EventError("principal"))?;
    let wire::Cause { call_id, request_id, trace_id, operation } = cause.unwrap_or_default();
    if action.is_empty() {
        return Err(EventError("action"));
    }
    let time = event_time.as_ref().ok_or(EventError("event_time"))?;
    Ok(AuditEvent {
        event_id: uuid::Uuid::parse_str(&event_id).map_err(|_| EventError("event_id"))?,
        event_time: convert::from_timestamp(time).map_err(|_| EventError("event_time"))?,
        audit_class: AuditClass::read(audit_class).ok_or(EventError("audit_class"))?,
        action,
        phase: Phase::read(phase).ok_or(EventError("phase"))?,
        principal: PrincipalRef {
            kind: PrincipalKind::read(kind).ok_or(EventError("principal.kind"))?,
            name,
            on_behalf_of,
            via,
            session_id,
        },
        target: target.map(decode_affected),
        affected: affected.into_iter().map(decode_affected).collect(),
        cause: Cause { call_id, request_id, trace_id, operation },
        decision: decision.map(decode_decision).transpose()?,
        outcome: decode_outcome(outcome.ok_or(EventError("outcome"))?)?,
        change: change.map(decode_change).transpose()?,
        summary,
    })
}

fn decode_affected(affected: wire::AffectedResource) -> Affected {
    let wire::AffectedResource { r#type, name, project } = affected;
    Affected { r#type, name, project }
}

fn decode_decision(reference: wire::DecisionReference) -> Result<DecisionRef, EventError> {
    let wire::DecisionReference { decision, effect, policies_digest, rule_ids, approvals } = reference;
    let effect = Effect::read(effect).ok_or(EventError("decision.effect"))?;
    Ok(DecisionRef { decision, effect, policies_digest, rule_ids, approvals })
}

fn decode_outcome(outcome: wire::Outcome) -> Result<Outcome, EventError> {
    let wire::Outcome { status, code, reason, duration } = outcome;
    let duration = duration.map(std::time::Duration::try_from).transpose();
    Ok(Outcome {
        status: Status::read(status).ok_or(EventError("outcome.status"))?,
        code: Code::read(code).ok_or(EventError("outcome.code"))?,
        reason,
        duration: duration.map_err(|_| EventError("outcome.duration"))?,
    })
}

fn decode_change(change: wire::Change) -> Result<Change, EventError> {
    let wire::Change { request_digest, plan_digest, before, after } = change;
    let value = |json: &[u8], field: &'static str| match json {
        [] => Ok(None),
        json => serde_json::from_slice(json).map(Some).map_err(|_| EventError(field)),
    };
    Ok(Change {
        request_digest,
        plan_digest,
        before: value(&before, "change.before")?,
        after: value(&after, "change.after")?,
    })
}

#[cfg(test)]
mod tests {
    use pavior_core::audit::Record;
    use prost::Name as _;
    use prost_reflect::{FieldDescriptor, Kind as FieldKind, MessageDescriptor};
    use serde_json::Value;

    use super::*;

    const DOCUMENTED: &str = include_str!("../../../docs/audit-record.json");

    fn event() -> AuditEvent {
        Record::from_bytes(DOCUMENTED.as_bytes()).unwrap().event
    }

    #[test]
    fn events_survive_the_wire() {
        let event = event();
        let wire = encode(event.clone());
        assert_eq!(wire.change.as_ref().unwrap().after, br#"{"":{},"a":[1e+21,"\n",null],"b":1.5}"#);
        assert_eq!(decode(wire).unwrap(), event);
        let mut unknown = encode(event.clone());
        unknown.phase = 9;
        assert_eq!(decode(unknown), Err(EventError("phase")));
        let mut unsaid = encode(event.clone());
        unsaid.audit_class = 0;
        assert_eq!(decode(unsaid), Err(EventError("audit_class")));
        let mut broken = encode(event);
        broken.change.as_mut().unwrap().before = b"{".to_vec();
        assert_eq!(decode(broken), Err(EventError("change.before")));
    }

    #[test]
    fn every_word_has_a_value_on_the_wire() {
        fn all<W: Word + Copy + PartialEq + std::fmt::Debug>(values: &[W], first: i32) {
            for value in values {
                assert!(value.wire() >= first, "{value:?}");
                assert_eq!(W::read(value.wire()), Some(*value));
            }
        }
        all(AuditClass::ALL, 1);
        all(Phase::ALL, 1);
        all(Status::ALL, 1);
        all(PrincipalKind::ALL, 1);
        all(Effect::ALL, 1);
        all(Code::ALL, 0);
        assert_eq!(Code::ALL.len(), 17);
        assert_eq!(code(tonic::Code::PermissionDenied), Code::PermissionDenied);
    }

    /// The members of `value` are the fields of the message, all of them, and its enums are written by their words.
    fn same_names(value: &Value, message: &MessageDescriptor) {
        let members: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let mut fields: Vec<String> = message.fields().map(|field| field.json_name().to_owned()).collect();
        fields.sort();
        assert_eq!(members, fields, "{}", message.full_name());
        for field in message.fields() {
            let member = &value[field.json_name()];
            let first = if field.is_list() { &member[0] } else { member };
            same_value(first, &field);
        }
    }

    fn same_value(value: &Value, field: &FieldDescriptor) {
        match field.kind() {
            FieldKind::Message(inner) if inner.full_name().starts_with("pavior.") => {
                same_names(value, &inner);
            }
            FieldKind::Enum(values) => {
                let word = value.as_str().unwrap();
                let known = values
                    .values()
                    .any(|value| value.name() == word || value.name().ends_with(&format!("_{word}")));
                assert!(known, "{word} is no {}", values.full_name());
            }
            _ => {}
        }
    }

    #[test]
    fn records_use_the_names_of_the_protos() {
        let record: Value = serde_json::from_str(DOCUMENTED).unwrap();
        let message = convert::pool().get_message_by_name(&pb::AuditEvent::full_name()).unwrap();
        same_names(&record["event"], &message);
    }
}
