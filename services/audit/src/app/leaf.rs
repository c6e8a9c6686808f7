//! The record as bytes: written once and never again. What is hashed is what is stored.

use aws_lc_rs::rand;
use pavior_core::audit::{Affected, AuditEvent, Cause, Outcome, PrincipalRef, Record};
use pavior_core::digest::{canonical_json, sha256};
use time::OffsetDateTime;

use crate::domain::batch::{Entry, IndexFields, Producer};
use crate::domain::hash::{self, Hash};
use crate::error::Error;

/// The longest duration of the wire, 10 000 years.
const MAX_DURATION: std::time::Duration = std::time::Duration::from_secs(315_576_000_000);

/// Who hands a record over.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) producer: Producer,
    pub(crate) instance: String,
    pub(crate) received_at: OffsetDateTime,
}

/// Turns an event into the entry of a log.
pub(crate) fn entry(origin: &Origin, log: &str, seq: i64, mut event: AuditEvent) -> Result<Entry, Error> {
    tidy(&mut event);
    let producer = pavior_core::audit::Origin {
        service: origin.producer.service.clone(),
        instance: origin.instance.clone(),
        epoch: origin.producer.epoch.clone(),
        sequence: seq,
    };
    let record = Record::new(log, producer, origin.received_at, event, salt()?);
    let body = record.to_bytes().map_err(Error::Encoding)?;
    Ok(kept(&record, body))
}

fn kept(record: &Record, body: Vec<u8>) -> Entry {
    let (log, seq) = (record.log.clone(), record.producer.sequence);
    Entry { log, seq, leaf: hash::leaf(&body), body, index_fields: index_fields(record) }
}

/// The same record without its values, for one that would be too large: it must not be lost, nor hold up what its
/// producer has to tell next.
pub(crate) fn abridged(origin: &Origin, entry: &Entry) -> Result<Entry, Error> {
    self::entry(origin, &entry.log, entry.seq, read(&entry.log, &entry.body)?.abridged())
}

/// SHA-256 over what a record's bytes say of the event itself: not when they came, nor through which process, nor the
/// salt. The values before and after count by their digests, so that an abridged record is still the same event.
pub(crate) fn content(log: &str, body: &[u8]) -> Result<Hash, Error> {
    let event = serde_json::to_value(read(log, body)?.abridged()).map_err(Error::Encoding)?;
    Ok(sha256(&canonical_json(&event)))
}

/// What is looked for by column never has control characters: they come from outside (a made-up resource name in a
/// denied request), PostgreSQL refuses some of them, and the record must say what its columns say.
fn tidy(event: &mut AuditEvent) {
    let AuditEvent { action, principal, target, affected, cause, outcome, .. } = event;
    let PrincipalRef { kind: _, name, on_behalf_of, via: _, session_id: _ } = principal;
    let Cause { call_id, request_id, trace_id: _, operation } = cause;
    let Outcome { status: _, code: _, reason: _, duration } = outcome;
    let places = target.iter_mut().chain(affected);
    let places = places.flat_map(|Affected { r#type, name, project }| [r#type, name, project]);
    for text in [action, name, on_behalf_of, call_id, request_id, operation].into_iter().chain(places) {
        if text.contains(char::is_control) {
            *text = text.replace(char::is_control, "\u{fffd}");
        }
    }
    *duration = duration.map(|duration| duration.min(MAX_DURATION));
}

fn index_fields(record: &Record) -> IndexFields {
    let event = &record.event;
    let Affected { r#type: target_type, name: target, project } = event.target.clone().unwrap_or_default();
    IndexFields {
        event_id: event.event_id.to_string(),
        receive_time: pavior_store::micros(record.receive_time),
        event_time: pavior_store::micros(event.event_time),
        audit_class: event.audit_class.as_str().to_owned(),
        action: event.action.clone(),
        principal: event.principal.name.clone(),
        on_behalf_of: event.principal.on_behalf_of.clone(),
        target,
        target_type,
        project,
        effect: event
            .decision
            .as_ref()
            .map(|decision| decision.effect.as_str().to_owned())
            .unwrap_or_default(),
        status: event.outcome.status.as_str().to_owned(),
        call_id: event.cause.call_id.clone(),
        request_id: event.cause.request_id.clone(),
        operation: event.cause.operation.clone(),
    }
}

fn salt() -> Result<String, Error> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| Error::Randomness)?;
    Ok(hex::encode(bytes))
}

/// Reads a record's bytes back into the event.
pub(crate) fn read(log: &str, body: &[u8]) -> Result<AuditEvent, Error> {
    parse(log, body).map(|record| record.event)
}

/// Reads a record's bytes back into what is stored of it.
pub(crate) fn reread(log: &str, body: &[u8]) -> Result<(Producer, Entry), Error> {
    let record = parse(log, body)?;
    let entry = kept(&record, body.to_vec());
    let producer = Producer { service: record.producer.service, epoch: record.producer.epoch };
    Ok((producer, Entry { log: log.to_owned(), ..entry }))
}

fn parse(log: &str, body: &[u8]) -> Result<Record, Error> {
    Record::from_bytes(body).map_err(|error| Error::Inconsistent {
        log: log.to_owned(),
        why: format!("a record is not readable: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pavior_core::audit::{Change, PrincipalKind, Status};
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    fn event() -> AuditEvent {
        AuditEvent {
            target: Some(Affected::new("t", "organizations/acme/x\u{0}\u{1f}/é")),
            affected: vec![Affected::new("t", "organizations/acme/\u{0}")],
            cause: Cause { call_id: "c".into(), ..Cause::default() },
            outcome: Outcome { duration: Some(Duration::MAX), ..Outcome::ok(Status::Succeeded) },
            change: Some(Change {
                after: Some(serde_json::json!({"b": 1.5, "a": [1e21, "\n", null], "": {}})),
                ..Change::default()
            }),
            summary: "line\nline".into(),
            ..AuditEvent::new(
                Uuid::from_u128(7),
                datetime!(2026-03-01 10:00 UTC),
                "catalog.components.create",
                PrincipalRef::new(PrincipalKind::User, "organizations/acme/users/alice"),
            )
        }
    }

    fn origin() -> Origin {
        Origin {
            producer: Producer { service: "catalog".into(), epoch: "e1".into() },
            instance: "i".into(),
            received_at: datetime!(2026-03-01 10:00:01.000001 UTC),
        }
    }

    #[test]
    fn what_is_stored_is_what_the_bytes_say() {
        let entry = entry(&origin(), "acme", 3, event()).unwrap();
        let back = read("acme", &entry.body).unwrap();
        let target = back.target.unwrap().name;
        assert_eq!(target, "organizations/acme/x\u{fffd}\u{fffd}/é");
        assert_eq!(back.affected[0].name, "organizations/acme/\u{fffd}");
        assert_eq!(back.outcome.duration, Some(MAX_DURATION));
        assert_eq!(back.summary, "line\nline");
        assert_eq!(entry.index_fields.target, target);
        assert_eq!(reread("acme", &entry.body).unwrap(), (origin().producer, entry));
    }

    #[test]
    fn a_record_without_a_target_has_none_in_its_columns() {
        let event = AuditEvent { target: None, ..event() };
        let fields = entry(&origin(), "acme", 3, event).unwrap().index_fields;
        assert_eq!((fields.target, fields.target_type, fields.project), Default::default());
    }

    #[test]
    fn content_is_that_of_the_event_alone() {
        let content_of = |origin: &Origin, event| {
            let entry = entry(origin, "acme", 3, event).unwrap();
            (content("acme", &entry.body).unwrap(), entry)
        };
        let (first, whole) = content_of(&origin(), event());
        let later = Origin { instance: "j".into(), received_at: datetime!(2026-03-02 10:00 UTC), ..origin() };
        assert_eq!(content_of(&later, event()).0, first);
        let short = abridged(&origin(), &whole).unwrap();
        assert_eq!(content("acme", &short.body).unwrap(), first);
        let other = AuditEvent { summary: "another".into(), ..event() };
        assert_ne!(content_of(&origin(), other).0, first);
    }

    #[test]
    fn no_two_records_have_the_same_salt() {
        let one = entry(&origin(), "acme", 3, event()).unwrap();
        let two = entry(&origin(), "acme", 3, event()).unwrap();
        assert_ne!(one.leaf, two.leaf);
    }
}
