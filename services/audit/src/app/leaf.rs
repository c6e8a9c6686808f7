//! The record as bytes: RFC 8785 canonical JSON, written once and never again. What is hashed is what is stored.

use aws_lc_rs::rand;
use pavior_core::audit::{Actor, AuditClass, AuditEvent, Cause, Change, DecisionRef, Object, Outcome, Phase};
use pavior_core::digest::{canonical_json, sha256};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;
use uuid::Uuid;

use crate::domain::batch::{Entry, IndexFields, Producer};
use crate::domain::hash::{self, Hash};
use crate::error::Error;

/// The format of records.
const VERSION: u32 = 1;
/// The largest whole number that every JSON reader takes exactly.
const MAX_EXACT: u64 = (1 << 53) - 1;

/// The record as its bytes say it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Leaf {
    v: u32,
    log: String,
    event_id: Uuid,
    producer: LeafProducer,
    time: String,
    received_at: String,
    class: AuditClass,
    action: String,
    phase: Phase,
    actor: Actor,
    object: Object,
    cause: Cause,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decision: Option<DecisionRef>,
    outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    change: Option<Change>,
    summary: String,
    /// Sixteen random bytes in hexadecimal: without them the hash of a removed record could be guessed at.
    salt: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct LeafProducer {
    service: String,
    instance: String,
    epoch: String,
    seq: i64,
}

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
    let index_fields = index_fields(origin, &event);
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
    let leaf = Leaf {
        v: VERSION,
        log: log.to_owned(),
        event_id,
        producer: LeafProducer {
            service: origin.producer.service.clone(),
            instance: origin.instance.clone(),
            epoch: origin.producer.epoch.clone(),
            seq,
        },
        time: write_time(time),
        received_at: write_time(origin.received_at),
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
        salt: salt()?,
    };
    let body = serde_json_canonicalizer::to_vec(&leaf).map_err(Error::Encoding)?;
    Ok(Entry { log: log.to_owned(), seq, leaf: hash::leaf(&body), body, index_fields })
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
    let AuditEvent { action, actor, object, cause, decision, outcome, .. } = event;
    let decision = decision.as_mut().map(|decision| &mut decision.effect);
    let texts = [
        action,
        &mut actor.reference,
        &mut object.name,
        &mut object.r#type,
        &mut cause.request_id,
        &mut outcome.status,
    ];
    for text in texts.into_iter().chain(object.project.as_mut()).chain(decision) {
        if text.contains(char::is_control) {
            *text = text.replace(char::is_control, "\u{fffd}");
        }
    }
    outcome.duration_ms = outcome.duration_ms.min(MAX_EXACT);
}

fn index_fields(origin: &Origin, event: &AuditEvent) -> IndexFields {
    IndexFields {
        event_id: event.event_id.to_string(),
        receive_time: pavior_store::micros(origin.received_at),
        event_time: pavior_store::micros(event.time),
        class: event.class.as_str().to_owned(),
        action: event.action.clone(),
        actor: event.actor.reference.clone(),
        object: event.object.name.clone(),
        object_type: event.object.r#type.clone(),
        project: event.object.project.clone().unwrap_or_default(),
        effect: event.decision.as_ref().map(|d| d.effect.clone()).unwrap_or_default(),
        status: event.outcome.status.clone(),
        request_id: event.cause.request_id.clone(),
        operation: event.cause.parent_event.map(|id| id.to_string()).unwrap_or_default(),
    }
}

fn salt() -> Result<String, Error> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| Error::Randomness)?;
    Ok(hex::encode(bytes))
}

/// Always six decimals and `Z`: one form, so that a reader needs no other.
fn write_time(time: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    time.to_offset(time::UtcOffset::UTC).format(format).unwrap_or_default()
}

/// Reads a record's bytes back into the event.
pub(crate) fn read(log: &str, body: &[u8]) -> Result<AuditEvent, Error> {
    parse(log, body).map(|(_, _, event)| event)
}

/// Reads a record's bytes back into what is stored of it.
pub(crate) fn reread(log: &str, body: &[u8]) -> Result<(Producer, Entry), Error> {
    let (origin, seq, event) = parse(log, body)?;
    let index_fields = index_fields(&origin, &event);
    let entry = Entry { log: log.to_owned(), seq, leaf: hash::leaf(body), body: body.to_vec(), index_fields };
    Ok((origin.producer, entry))
}

/// Who handed a record over, under which number, and the event.
fn parse(log: &str, body: &[u8]) -> Result<(Origin, i64, AuditEvent), Error> {
    let unreadable = |why: String| Error::Inconsistent { log: log.to_owned(), why };
    let leaf: Leaf =
        serde_json::from_slice(body).map_err(|e| unreadable(format!("a record is not readable: {e}")))?;
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    let time = |text: &str| {
        time::PrimitiveDateTime::parse(text, format)
            .map(time::PrimitiveDateTime::assume_utc)
            .map_err(|e| unreadable(format!("a record's time is not readable: {e}")))
    };
    let Leaf {
        v: _,
        log: _,
        event_id,
        producer: LeafProducer { service, instance, epoch, seq },
        time: event_time,
        received_at,
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
        salt: _,
    } = leaf;
    let producer = Producer { service, epoch };
    let origin = Origin { producer, instance, received_at: time(&received_at)? };
    let event = AuditEvent {
        event_id,
        time: time(&event_time)?,
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
    };
    Ok((origin, seq, event))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn event() -> AuditEvent {
        AuditEvent {
            event_id: Uuid::from_u128(7),
            time: datetime!(2026-03-01 10:00 UTC),
            class: AuditClass::A,
            action: "catalog.components.create".into(),
            phase: Phase::Outcome,
            actor: Actor {
                kind: "user".into(),
                reference: "organizations/acme/users/alice".into(),
                ..Actor::default()
            },
            object: Object {
                r#type: "t".into(),
                name: "organizations/acme/x\u{0}\u{1f}/é".into(),
                project: None,
            },
            cause: Cause { request_id: "r".into(), ..Cause::default() },
            decision: None,
            outcome: Outcome { status: "ok".into(), code: String::new(), duration_ms: u64::MAX },
            change: Some(Change {
                after: Some(serde_json::json!({"b": 1.5, "a": [1e21, "\n", null], "": {}})),
                ..Change::default()
            }),
            summary: "line\nline".into(),
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
    fn bytes_are_canonical_and_read_back() {
        let entry = entry(&origin(), "acme", 3, event()).unwrap();
        let text = String::from_utf8(entry.body.clone()).unwrap();
        assert!(text.starts_with(r#"{"action":"catalog.components.create","actor":{"#), "{text}");
        assert!(text.contains(r#""change":{"after":{"":{},"a":[1e+21,"\n",null],"b":1.5}}"#), "{text}");
        assert!(text.contains(r#""time":"2026-03-01T10:00:00.000000Z""#), "{text}");
        assert!(text.contains(r#""received_at":"2026-03-01T10:00:01.000001Z""#), "{text}");
        assert!(!text.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(pavior_core::digest::canonical_json(&value), entry.body);
        let back = read("acme", &entry.body).unwrap();
        assert_eq!(back.object.name, "organizations/acme/x\u{fffd}\u{fffd}/é");
        assert_eq!(back.outcome.duration_ms, MAX_EXACT);
        assert_eq!(back.summary, "line\nline");
        assert_eq!(entry.index_fields.object, back.object.name);
        assert_eq!(reread("acme", &entry.body).unwrap(), (origin().producer, entry));
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
