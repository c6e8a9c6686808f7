//! The record of an event: what stands in the log, byte for byte.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{AuditEvent, form};
use crate::digest::canonical_json;

/// The format of records.
const VERSION: u32 = 1;

/// An event with its place in its producer's line and the time at which the log took it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    version: u32,
    /// The id of the organization; `pavior` for the log of the installation itself.
    pub log: String,
    /// Who told it.
    pub producer: Origin,
    /// When the log took it.
    #[serde(with = "form::time")]
    pub receive_time: OffsetDateTime,
    /// What happened.
    pub event: AuditEvent,
    /// Sixteen random bytes in hexadecimal: without them the hash of a removed record could be guessed at.
    pub salt: String,
}

/// Who told an event, and its number there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The service.
    pub service: String,
    /// The running instance; empty when it did not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// The epoch in which numbers have no gap.
    pub epoch: String,
    /// The number of the event.
    pub sequence: i64,
}

impl Record {
    /// A record of the format of today.
    pub fn new(
        log: &str,
        producer: Origin,
        receive_time: OffsetDateTime,
        event: AuditEvent,
        salt: String,
    ) -> Self {
        Self { version: VERSION, log: log.to_owned(), producer, receive_time, event, salt }
    }

    /// The bytes that are hashed and kept: RFC 8785 canonical JSON.
    ///
    /// # Errors
    /// A time that has no form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        Ok(canonical_json(&serde_json::to_value(self)?))
    }

    /// Reads the bytes back.
    ///
    /// # Errors
    /// Bytes that are no record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::super::{
        Affected, Cause, Change, Code, DecisionRef, Effect, Outcome, PrincipalKind, PrincipalRef, Status,
    };
    use super::*;

    /// A record in which every member has a value.
    fn full() -> Record {
        let principal = PrincipalRef {
            on_behalf_of: "organizations/acme/users/alice".into(),
            via: crate::principal::service_name("provisioning"),
            session_id: "session-1".into(),
            ..PrincipalRef::new(PrincipalKind::Agent, "organizations/acme/agents/bot")
        };
        let event = AuditEvent {
            target: Some(Affected {
                r#type: "provisioning.pavior.dev/Environment".into(),
                name: "organizations/acme/projects/shop/environments/dev".into(),
                project: "organizations/acme/projects/shop".into(),
            }),
            affected: vec![Affected {
                r#type: "provisioning.pavior.dev/Deployment".into(),
                name: "organizations/acme/projects/shop/environments/dev/deployments/web".into(),
                project: "organizations/acme/projects/shop".into(),
            }],
            cause: Cause {
                call_id: "call-1".into(),
                request_id: "6f1c2f0e-6b0e-4d0a-9d0e-6a1b2c3d4e5f".into(),
                trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
                operation: "organizations/acme/operations/01900000-0000-7000-8000-000000000001".into(),
            },
            decision: Some(DecisionRef {
                decision: "organizations/acme/decisions/01900000-0000-7000-8000-000000000002".into(),
                effect: Effect::RequireApproval,
                policies_digest: format!("sha256:{}", "22".repeat(32)),
                rule_ids: vec!["production-approval".into()],
                approvals: vec!["organizations/acme/approvals/a".into()],
            }),
            outcome: Outcome {
                duration: Some(Duration::from_micros(1_500_007)),
                ..Outcome::error(Status::Failed, Code::Aborted, "STEP_FAILED")
            },
            change: Some(Change {
                request_digest: format!("sha256:{}", "00".repeat(32)),
                plan_digest: format!("sha256:{}", "11".repeat(32)),
                before: Some(json!({"replicas": 1})),
                after: Some(json!({"b": 1.5, "a": [1e21, "\n", null], "": {}})),
            }),
            summary: "alice's update failed".into(),
            ..AuditEvent::new(
                Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0007),
                datetime!(2026-03-01 10:00:00.123456 UTC),
                "provisioning.environments.update",
                principal,
            )
        };
        let producer = Origin {
            service: "provisioning".into(),
            instance: "provisioning-1".into(),
            epoch: "1".into(),
            sequence: 3,
        };
        Record::new("acme", producer, datetime!(2026-03-01 10:00:01.000001 UTC), event, "ab".repeat(16))
    }

    #[test]
    fn records_are_written_as_documented_and_read_back() {
        let record = full();
        let bytes = record.to_bytes().unwrap();
        let documented = include_str!("../../../../docs/audit-record.json");
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), documented.trim_end());
        assert_eq!(Record::from_bytes(&bytes).unwrap(), record);
    }

    #[test]
    fn what_is_empty_is_left_out() {
        let mut record = full();
        let PrincipalRef { kind, .. } = record.event.principal;
        record.event = AuditEvent::new(
            record.event.event_id,
            record.event.event_time,
            "a.b.c",
            PrincipalRef::new(kind, ""),
        );
        record.producer.instance = String::new();
        let bytes = record.to_bytes().unwrap();
        let event = r#""event":{"action":"a.b.c","auditClass":"REQUIRED","eventId":"01900000-0000-7000-8000-000000000007","eventTime":"2026-03-01T10:00:00.123456Z","outcome":{"code":"OK","status":"SUCCEEDED"},"phase":"OUTCOME","principal":{"kind":"AGENT"}}"#;
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(event), "{text}");
        assert!(text.contains(r#""producer":{"epoch":"1","sequence":3,"service":"provisioning"}"#), "{text}");
        assert_eq!(Record::from_bytes(&bytes).unwrap(), record);
    }

    #[test]
    fn times_and_durations_have_one_form() {
        let text = String::from_utf8(full().to_bytes().unwrap()).unwrap();
        for (right, wrong) in [
            ("1.500007s", "1.5s"),
            ("1.500007s", "1.500007"),
            (":00.123456Z", ":00Z"),
            (":00.123456Z", ":00.123456+00:00"),
        ] {
            let text = text.replace(right, wrong);
            let error = Record::from_bytes(text.as_bytes()).unwrap_err();
            assert_eq!(error.classify(), serde_json::error::Category::Data, "{wrong}");
        }
    }
}
