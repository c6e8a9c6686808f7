//! The audit event, as every producer writes it into its outbox.
//!
//! The audit service adds the producer's position, the time of receipt and the salt, and turns it into a record.
//! References are pseudonymous resource names: personal data never stands in a field of this type.

mod bound;

pub use bound::{MAX_EVENT_BYTES, MAX_VALUE_DEPTH, abridge};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

/// How much must be kept of an act, and what happens when it cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AuditClass {
    /// Changes, approvals, elevation, secret reads, policy changes: the act fails if its record cannot be kept.
    A,
    /// Reads: counted if dropped.
    B,
    /// Decisions at a high rate: batched with digests.
    C,
}

impl AuditClass {
    /// `A`, `B` or `C`.
    pub fn as_str(self) -> &'static str {
        match self {
            AuditClass::A => "A",
            AuditClass::B => "B",
            AuditClass::C => "C",
        }
    }
}

/// Whether an event announces an act or tells its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Durable before an external effect.
    Intent,
    /// The end of the act.
    Outcome,
}

impl Phase {
    /// `intent` or `outcome`.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Intent => "intent",
            Phase::Outcome => "outcome",
        }
    }
}

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Actor {
    /// `user`, `service`, `agent` or `anonymous`.
    pub kind: String,
    /// Resource name of the principal.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Through what it acted: the resource name of the agent or service in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Id of the session or token (`jti`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

impl Actor {
    /// The actor that a principal is. One that acts for another is recorded as that other, *via* itself.
    pub fn of(principal: &crate::Principal) -> Self {
        let kind = principal.kind.as_str().to_owned();
        match &principal.on_behalf_of {
            Some(other) => {
                let kind = if other.contains("/users/") { "user".to_owned() } else { kind };
                Self { kind, reference: other.clone(), via: Some(principal.name.clone()), session: None }
            }
            None => Self { kind, reference: principal.name.clone(), via: None, session: None },
        }
    }
}

/// What was acted on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Object {
    /// Resource type, such as `pavior.dev/Component`.
    pub r#type: String,
    /// Resource name.
    pub name: String,
    /// Resource name of the project that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
}

/// Why it happened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cause {
    /// The `x-request-id` of the call.
    pub request_id: String,
    /// W3C trace id, 32 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The event that led to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_event: Option<Uuid>,
}

/// The policy decision under which it happened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DecisionRef {
    /// Resource name of the decision.
    pub id: String,
    /// `allow`, `deny` or `require_approval`.
    pub effect: String,
    /// Revision of the policy set.
    pub policy_revision: String,
    /// Ids of the policies that determined it.
    #[serde(default)]
    pub policies: Vec<String>,
    /// Resource names of the approvals that it needed.
    #[serde(default)]
    pub approvals: Vec<String>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// `ok`, `error`, `denied`, `pending`, `accepted`, or `planned` when a change was only looked at.
    pub status: String,
    /// Name of the gRPC code, such as `OK` or `NOT_FOUND`.
    pub code: String,
    /// Milliseconds from begin to end.
    pub duration_ms: u64,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Change {
    /// SHA-256 (hex) of the canonical request parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params_digest: Option<String>,
    /// SHA-256 (hex) of the plan that was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
    /// The resource before, without secrets and personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    /// The resource after, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
}

/// One act, as its producer saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// UUIDv7; the same event sent twice has the same id.
    pub event_id: Uuid,
    /// When it happened, UTC, microseconds.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// See [`AuditClass`].
    pub class: AuditClass,
    /// Action name, such as `catalog.components.create`.
    pub action: String,
    /// See [`Phase`].
    pub phase: Phase,
    /// Who.
    pub actor: Actor,
    /// On what.
    pub object: Object,
    /// Why.
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
    pub summary: String,
}

impl AuditEvent {
    /// The organization whose log the event belongs to: that of the object, else of the actor, else the platform's
    /// (`-`).
    pub fn organization(&self) -> &str {
        let of = |name: &'_ str| -> Option<usize> {
            let rest = name.strip_prefix(ORGANIZATIONS)?;
            let id = rest.split('/').next().unwrap_or_default();
            (!id.is_empty()).then_some(id.len())
        };
        for name in [&self.object.name, &self.actor.reference] {
            if let Some(length) = of(name) {
                return name.get(ORGANIZATIONS.len()..ORGANIZATIONS.len() + length).unwrap_or(PLATFORM);
            }
        }
        PLATFORM
    }
}

const ORGANIZATIONS: &str = "organizations/";
const PLATFORM: &str = "-";

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn event() -> AuditEvent {
        AuditEvent {
            event_id: Uuid::from_u128(7),
            time: time::macros::datetime!(2026-03-01 10:00:00.123456 UTC),
            class: AuditClass::A,
            action: "catalog.components.create".into(),
            phase: Phase::Outcome,
            actor: Actor {
                kind: "user".into(),
                reference: "organizations/acme/users/alice".into(),
                ..Default::default()
            },
            object: Object { r#type: "pavior.dev/Component".into(), ..Default::default() },
            cause: Cause { request_id: "r".into(), ..Default::default() },
            decision: None,
            outcome: Outcome { status: "ok".into(), code: "OK".into(), duration_ms: 3 },
            change: None,
            summary: "alice created web".into(),
        }
    }

    #[test]
    fn an_event_belongs_to_the_log_of_its_object_or_else_of_its_actor() {
        let mut event = event();
        event.object.name = "organizations/beta/things/x".into();
        assert_eq!(event.organization(), "beta");
        event.object.name = "platform".into();
        assert_eq!(event.organization(), "acme");
        event.actor.reference = "organizations/".into();
        assert_eq!(event.organization(), "-");
    }

    #[test]
    fn event_round_trips_and_uses_the_documented_keys() {
        let event = event();
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["actor"]["ref"], "organizations/acme/users/alice");
        assert_eq!(json["object"]["type"], "pavior.dev/Component");
        assert_eq!(json["time"], "2026-03-01T10:00:00.123456Z");
        assert_eq!(json["phase"], "outcome");
        assert_eq!(serde_json::from_value::<AuditEvent>(json).unwrap(), event);
    }

    #[test]
    fn an_agent_is_recorded_as_the_means_of_its_user() {
        let agent = crate::Principal {
            kind: crate::PrincipalKind::Agent,
            name: "organizations/acme/agents/bot".into(),
            organization: "acme".into(),
            subject: "bot".into(),
            groups: vec![],
            email: None,
            display_name: None,
            platform_admin: false,
            on_behalf_of: Some("organizations/acme/users/alice".into()),
        };
        let actor = Actor::of(&agent);
        assert_eq!(
            (actor.kind.as_str(), actor.reference.as_str()),
            ("user", "organizations/acme/users/alice")
        );
        assert_eq!(actor.via.as_deref(), Some("organizations/acme/agents/bot"));
    }
}
