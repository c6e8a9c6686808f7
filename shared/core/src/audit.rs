//! The audit event, as every producer writes it into its outbox, and the record that the audit log keeps of it.
//!
//! This is the one place that knows how both are written: the members are called as the fields of
//! `pavior.audit.v1.AuditEvent` in JSON, enums stand without their prefix, and what is empty is left out. What is hashed
//! is written here, so a name that changes changes every record; `docs/audit-record.json` holds them fast.
//! References are pseudonymous resource names: personal data never stands in a field of these types.

mod bound;
mod form;
mod record;
mod words;

pub use bound::{MAX_EVENT_BYTES, MAX_VALUE_DEPTH, abridge};
pub use record::{Origin, Record};
pub use words::{AuditClass, Code, Effect, Phase, PrincipalKind, Status};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::principal::INSTALLATION;

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrincipalRef {
    /// What kind of principal.
    pub kind: PrincipalKind,
    /// Its resource name; empty when nobody knows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// On whose behalf it acted: the resource name of the person behind an agent; empty when it acted for itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub on_behalf_of: String,
    /// The resource name of the service that carries an operation out for the principal: of its steps and its end; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub via: String,
    /// Id of the session or token (`jti`); empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub session_id: String,
}

impl PrincipalRef {
    /// Of a kind and a name.
    pub fn new(kind: PrincipalKind, name: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
            on_behalf_of: String::new(),
            via: String::new(),
            session_id: String::new(),
        }
    }

    /// What a principal is in a record: itself, and beside it whom it acts for.
    pub fn of(principal: &crate::Principal) -> Self {
        let on_behalf_of = principal.on_behalf_of.clone().unwrap_or_default();
        Self { on_behalf_of, ..Self::new(principal.kind.into(), &principal.name) }
    }
}

/// Something that was acted on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Affected {
    /// Resource type, such as `catalog.pavior.dev/Entity`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    /// Resource name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Resource name of the project that it belongs to; empty when to none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project: String,
}

impl Affected {
    /// Something that belongs to no project.
    pub fn new(r#type: impl Into<String>, name: impl Into<String>) -> Self {
        Self { r#type: r#type.into(), name: name.into(), project: String::new() }
    }
}

/// Why it happened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// The `x-request-id` of the call.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub call_id: String,
    /// The `request_id` in the request, which makes it repeatable.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// W3C trace id, 32 hex digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    /// Resource name of the operation that it is a part of, or that it began.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation: String,
}

impl Cause {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The policy decision under which it happened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionRef {
    /// Resource name of the decision.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub decision: String,
    /// What it says.
    pub effect: Effect,
    /// Digest of all policies, roles and bindings that decided.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policies_digest: String,
    /// Ids of the rules that determined it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rule_ids: Vec<String>,
    /// Resource names of the approvals that it needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<String>,
}

impl DecisionRef {
    /// Ids as a decision names them: in their order, each once, although a policy may speak several times.
    pub fn each_once<'i>(ids: impl IntoIterator<Item = &'i str>) -> Vec<String> {
        let mut known = std::collections::HashSet::new();
        ids.into_iter().filter(|id| known.insert(*id)).map(str::to_owned).collect()
    }
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// What became of it.
    pub status: Status,
    /// The gRPC code.
    pub code: Code,
    /// The reason of an error; empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// From begin to end; absent when nobody measured it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "form::duration")]
    pub duration: Option<Duration>,
}

impl Outcome {
    /// One that went as it was meant to.
    pub fn ok(status: Status) -> Self {
        Self { status, code: Code::Ok, reason: String::new(), duration: None }
    }

    /// One that went wrong.
    pub fn error(status: Status, code: Code, reason: impl Into<String>) -> Self {
        Self { status, code, reason: reason.into(), duration: None }
    }
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// SHA-256 of the canonical request ([`crate::digest::sha256_digest`]).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_digest: String,
    /// SHA-256 of the plan that was carried out, likewise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plan_digest: String,
    /// The resource before, without secrets and personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The resource after, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// One act, as its producer saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// UUIDv7; the same event sent twice has the same id.
    pub event_id: Uuid,
    /// When it happened, UTC, microseconds.
    #[serde(with = "form::time")]
    pub event_time: OffsetDateTime,
    /// See [`AuditClass`].
    pub audit_class: AuditClass,
    /// Action name, such as `catalog.components.create`.
    pub action: String,
    /// See [`Phase`].
    pub phase: Phase,
    /// Who.
    pub principal: PrincipalRef,
    /// On what; absent when it has no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Affected>,
    /// What else it changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub affected: Vec<Affected>,
    /// Why.
    #[serde(default, skip_serializing_if = "Cause::is_empty")]
    pub cause: Cause,
    /// Under which decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionRef>,
    /// With what end.
    pub outcome: Outcome,
    /// With what change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// One sentence for people, without personal data.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
}

impl AuditEvent {
    /// That something was done which had to be recorded. What else there is to say is set afterwards.
    pub fn new(event_id: Uuid, event_time: OffsetDateTime, action: &str, principal: PrincipalRef) -> Self {
        Self {
            event_id,
            event_time,
            audit_class: AuditClass::Required,
            action: action.to_owned(),
            phase: Phase::Outcome,
            principal,
            target: None,
            affected: Vec::new(),
            cause: Cause::default(),
            decision: None,
            outcome: Outcome::ok(Status::Succeeded),
            change: None,
            summary: String::new(),
        }
    }

    /// The organization whose log the event belongs to: that of the target, else of the principal, else the
    /// installation's.
    pub fn organization(&self) -> &str {
        let of = |name: &'_ str| -> Option<usize> {
            let rest = name.strip_prefix(ORGANIZATIONS)?;
            let id = rest.split('/').next().unwrap_or_default();
            (!id.is_empty()).then_some(id.len())
        };
        for name in self.target.as_ref().map(|target| &target.name).into_iter().chain([&self.principal.name])
        {
            if let Some(length) = of(name) {
                return name.get(ORGANIZATIONS.len()..ORGANIZATIONS.len() + length).unwrap_or(INSTALLATION);
            }
        }
        INSTALLATION
    }
}

const ORGANIZATIONS: &str = "organizations/";

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn event() -> AuditEvent {
        let time = time::macros::datetime!(2026-03-01 10:00:00.123456 UTC);
        let alice = PrincipalRef::new(PrincipalKind::User, "organizations/acme/users/alice");
        AuditEvent {
            target: Some(Affected::new(
                "catalog.pavior.dev/Entity",
                "organizations/acme/kinds/a/entities/web",
            )),
            cause: Cause { call_id: "c".into(), ..Cause::default() },
            summary: "alice created web".into(),
            ..AuditEvent::new(Uuid::from_u128(7), time, "catalog.entities.create", alice)
        }
    }

    #[test]
    fn an_event_belongs_to_the_log_of_its_target_or_else_of_its_principal() {
        let mut event = event();
        event.target = Some(Affected::new("t", "organizations/beta/things/x"));
        event.affected.push(Affected::new("t", "organizations/gamma/things/x"));
        assert_eq!(event.organization(), "beta");
        event.target = Some(Affected::new("t", "databases/catalog"));
        assert_eq!(event.organization(), "acme");
        event.target = None;
        event.principal.name = "organizations/".into();
        assert_eq!(event.organization(), INSTALLATION);
    }

    #[test]
    fn a_decision_names_each_rule_once_in_its_order() {
        assert_eq!(DecisionRef::each_once(["b", "a", "b", "c", "a"]), ["b", "a", "c"]);
    }

    #[test]
    fn an_agent_is_recorded_as_itself_with_whom_it_acts_for() {
        let agent = crate::Principal {
            kind: crate::PrincipalKind::Agent,
            name: "organizations/acme/agents/bot".into(),
            organization: "acme".into(),
            subject: "bot".into(),
            groups: vec![],
            email: None,
            display_name: None,
            installation_operator: false,
            on_behalf_of: Some("organizations/acme/users/alice".into()),
        };
        let wanted = PrincipalRef {
            on_behalf_of: "organizations/acme/users/alice".into(),
            ..PrincipalRef::new(PrincipalKind::Agent, "organizations/acme/agents/bot")
        };
        assert_eq!(PrincipalRef::of(&agent), wanted);
    }
}
