//! The record as bytes: written once and never again. What is hashed is what is stored.

use aws_lc_rs::rand;
use pavior_core::audit::{self, Affected, AuditEvent, Cause, Outcome, PrincipalRef, Record};
use pavior_core::digest::{canonical_json, sha256};
use time::OffsetDateTime;

use super::batch::{Entry, Producer};
use super::hash::{self, Hash};
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
pub(crate) fn encode(origin: &Origin, log: &str, seq: i64, mut event: AuditEvent) -> Result<Entry, Error> {
    replace_control_characters(&mut event);
    let producer = audit::Origin {
        service: origin.producer.service.clone(),
        instance: origin.instance.clone(),
        epoch: origin.producer.epoch.clone(),
        sequence: seq,
    };
    let record = Record::new(log, producer, origin.received_at, event, salt()?);
    let body = record.to_bytes().map_err(Error::Encoding)?;
    Ok(entry(record, body))
}

fn entry(record: Record, body: Vec<u8>) -> Entry {
    let Record { log, producer, receive_time, event, .. } = record;
    Entry { log, seq: producer.sequence, leaf: hash::leaf(&body), body, receive_time, event }
}

/// The same entry without its values, for one that would be too large: it must not be lost, nor hold up what its
/// producer has to tell next.
pub(crate) fn abridge(origin: &Origin, entry: &Entry) -> Result<Entry, Error> {
    encode(origin, &entry.log, entry.seq, decode_event(&entry.log, &entry.body)?.abridged())
}

/// SHA-256 over what a record's bytes say of the event itself: not when they came, nor through which process, nor the
/// salt. The values before and after count by their digests, so that an abridged record is still the same event.
pub(crate) fn content_digest(log: &str, body: &[u8]) -> Result<Hash, Error> {
    let event = serde_json::to_value(decode_event(log, body)?.abridged()).map_err(Error::Encoding)?;
    Ok(sha256(&canonical_json(&event)))
}

/// What is looked for by column never has control characters: they come from outside (a made-up resource name in a
/// denied request), PostgreSQL refuses some of them, and the record must say what its columns say.
fn replace_control_characters(event: &mut AuditEvent) {
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

fn salt() -> Result<String, Error> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| Error::Randomness)?;
    Ok(hex::encode(bytes))
}

/// Reads a record's bytes back into the event.
pub(crate) fn decode_event(log: &str, body: &[u8]) -> Result<AuditEvent, Error> {
    parse(log, body).map(|record| record.event)
}

/// Reads a record's bytes back into what is stored of it.
pub(crate) fn decode_entry(log: &str, body: &[u8]) -> Result<(Producer, Entry), Error> {
    let record = parse(log, body)?;
    let producer =
        Producer { service: record.producer.service.clone(), epoch: record.producer.epoch.clone() };
    Ok((producer, Entry { log: log.to_owned(), ..entry(record, body.to_vec()) }))
}

fn parse(log: &str, body: &[u8]) -> Result<Record, Error> {
    Record::from_bytes(body)
        .map_err(|error| Error::inconsistent(log, format!("a record is not readable: {error}")))
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
        let entry = encode(&origin(), "acme", 3, event()).unwrap();
        let back = decode_event("acme", &entry.body).unwrap();
        let target = back.target.unwrap().name;
        assert_eq!(target, "organizations/acme/x\u{fffd}\u{fffd}/é");
        assert_eq!(back.affected[0].name, "organizations/acme/\u{fffd}");
        assert_eq!(back.outcome.duration, Some(MAX_DURATION));
        assert_eq!(back.summary, "line\nline");
        assert_eq!(entry.event.target.as_ref().unwrap().name, target);
        assert_eq!(decode_entry("acme", &entry.body).unwrap(), (origin().producer, entry));
    }

    #[test]
    fn content_is_that_of_the_event_alone() {
        let content_of = |origin: &Origin, event| {
            let entry = encode(origin, "acme", 3, event).unwrap();
            (content_digest("acme", &entry.body).unwrap(), entry)
        };
        let (first, whole) = content_of(&origin(), event());
        let later = Origin { instance: "j".into(), received_at: datetime!(2026-03-02 10:00 UTC), ..origin() };
        assert_eq!(content_of(&later, event()).0, first);
        let short = abridge(&origin(), &whole).unwrap();
        assert_eq!(content_digest("acme", &short.body).unwrap(), first);
        let other = AuditEvent { summary: "another".into(), ..event() };
        assert_ne!(content_of(&origin(), other).0, first);
    }

    #[test]
    fn no_two_records_have_the_same_salt() {
        let one = encode(&origin(), "acme", 3, event()).unwrap();
        let two = encode(&origin(), "acme", 3, event()).unwrap();
        assert_ne!(one.leaf, two.leaf);
    }
}
