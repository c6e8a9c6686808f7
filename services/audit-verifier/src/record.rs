//! What the verifier reads in a record's bytes: only what stands beside them in columns, and who produced it.

use std::borrow::Cow;

use serde::Deserialize;

/// Separates columns in the comparison line. Records never carry control characters in these fields.
pub(crate) const SEPARATOR: char = '\u{1f}';

/// The columns of the comparison line, in its order, so that a difference can be named.
pub(crate) const COLUMNS: [&str; 20] = [
    "event_id",
    "receive_time",
    "event_time",
    "audit_class",
    "action",
    "principal",
    "on_behalf_of",
    "target",
    "target_type",
    "project",
    "effect",
    "status",
    "call_id",
    "request_id",
    "operation",
    "service",
    "epoch",
    "seq",
    "log",
    "body_bytes",
];

/// A record, as far as the verifier reads it. What is empty is left out of records.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record<'a> {
    pub(crate) version: u32,
    #[serde(borrow)]
    pub(crate) log: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) producer: Producer<'a>,
    #[serde(borrow)]
    receive_time: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) event: Event<'a>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Producer<'a> {
    #[serde(borrow)]
    pub(crate) service: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) epoch: Cow<'a, str>,
    pub(crate) sequence: u64,
}

/// What of an event also stands in columns.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event<'a> {
    #[serde(borrow)]
    pub(crate) event_id: Cow<'a, str>,
    #[serde(borrow)]
    event_time: Cow<'a, str>,
    #[serde(borrow)]
    audit_class: Cow<'a, str>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    principal: Principal<'a>,
    #[serde(borrow, default)]
    target: Target<'a>,
    #[serde(borrow, default)]
    cause: Cause<'a>,
    #[serde(borrow, default)]
    decision: Decision<'a>,
    #[serde(borrow)]
    outcome: Outcome<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Principal<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    on_behalf_of: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
struct Target<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    project: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cause<'a> {
    #[serde(borrow, default)]
    call_id: Cow<'a, str>,
    #[serde(borrow, default)]
    request_id: Cow<'a, str>,
    #[serde(borrow, default)]
    operation: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
struct Decision<'a> {
    #[serde(borrow, default)]
    effect: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
struct Outcome<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
}

/// What an operator's record says of numbers that are in no log.
#[derive(Debug, Deserialize)]
struct Restore {
    event: Restored,
}

#[derive(Debug, Deserialize)]
struct Restored {
    change: Detail,
}

#[derive(Debug, Deserialize)]
struct Detail {
    after: Gaps,
}

#[derive(Debug, Deserialize)]
struct Gaps {
    #[serde(default)]
    gaps: Vec<Lost>,
}

/// Numbers of a producer whose loss was accepted, both ends included.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Lost {
    pub(crate) service: String,
    pub(crate) epoch: String,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl<'a> Record<'a> {
    /// The losses that the record accepts: only one that the audit service made itself, by an operator's command, does.
    pub(crate) fn accepted(&self, bytes: &[u8]) -> Result<Vec<Lost>, String> {
        if self.producer.service != "audit" || self.event.action != "platform.restore" {
            return Ok(Vec::new());
        }
        let Restore { event: Restored { change: Detail { after: Gaps { gaps } } } } =
            serde_json::from_slice(bytes).map_err(|e| format!("what it accepts is not readable: {e}"))?;
        Ok(gaps)
    }

    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let record: Self =
            serde_json::from_slice(bytes).map_err(|e| format!("the record is not readable: {e}"))?;
        if record.version != 1 {
            return Err(format!(
                "the record has version {}, which this verifier does not know",
                record.version
            ));
        }
        Ok(record)
    }

    /// Writes what the columns beside the record must say, in the order of [`COLUMNS`]; returns the time of receipt.
    pub(crate) fn comparison(&self, body_bytes: usize, line: &mut String) -> Result<i64, String> {
        use std::fmt::Write as _;
        line.clear();
        let event = &self.event;
        let received = micros(&self.receive_time).ok_or("the record's `receiveTime` is not a time")?;
        let happened = micros(&event.event_time).ok_or("the record's `eventTime` is not a time")?;
        write!(line, "{}{SEPARATOR}{received}{SEPARATOR}{happened}", event.event_id)
            .map_err(|e| e.to_string())?;
        for text in [
            &*event.audit_class,
            &*event.action,
            &*event.principal.name,
            &*event.principal.on_behalf_of,
            &*event.target.name,
            &*event.target.kind,
            &*event.target.project,
            &*event.decision.effect,
            &*event.outcome.status,
            &*event.cause.call_id,
            &*event.cause.request_id,
            &*event.cause.operation,
            &*self.producer.service,
            &*self.producer.epoch,
        ] {
            line.push(SEPARATOR);
            line.push_str(text);
        }
        write!(line, "{SEPARATOR}{}{SEPARATOR}{}{SEPARATOR}{body_bytes}", self.producer.sequence, self.log)
            .map_err(|e| e.to_string())?;
        Ok(received)
    }
}

/// Names the first column in which two comparison lines differ.
pub(crate) fn differing_column(expected: &str, found: &[u8]) -> &'static str {
    let found = String::from_utf8_lossy(found);
    let mut found = found.split(SEPARATOR);
    for (column, text) in COLUMNS.iter().zip(expected.split(SEPARATOR)) {
        if found.next() != Some(text) {
            return column;
        }
    }
    "(unknown)"
}

/// Microseconds since 1970 of `2026-11-22T18:01:08.123456Z`, the one form that records use.
fn micros(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    let shape = b.len() == 27
        && [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')]
            .iter()
            .all(|(at, c)| b[*at] == *c);
    if !shape {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        b[from..to].iter().try_fold(0i64, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // Days from the civil calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + number(20, 26)?)
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS, Record, SEPARATOR, micros};

    #[test]
    fn documented_record_is_read() {
        let text = include_str!("../../../docs/audit-record.json").trim_end();
        let record = Record::parse(text.as_bytes()).unwrap();
        let mut line = String::new();
        record.comparison(text.len(), &mut line).unwrap();
        let found: Vec<_> = COLUMNS.into_iter().zip(line.split(SEPARATOR)).collect();
        let bytes = text.len().to_string();
        let operation = "organizations/acme/operations/01900000-0000-7000-8000-000000000001";
        assert_eq!(
            found,
            [
                ("event_id", "01900000-0000-7000-8000-000000000007"),
                ("receive_time", "1772359201000001"),
                ("event_time", "1772359200123456"),
                ("audit_class", "REQUIRED"),
                ("action", "provisioning.environments.update"),
                ("principal", "organizations/acme/agents/bot"),
                ("on_behalf_of", "organizations/acme/users/alice"),
                ("target", "organizations/acme/projects/shop/environments/dev"),
                ("target_type", "provisioning.pavior.dev/Environment"),
                ("project", "organizations/acme/projects/shop"),
                ("effect", "REQUIRE_APPROVAL"),
                ("status", "FAILED"),
                ("call_id", "call-1"),
                ("request_id", "6f1c2f0e-6b0e-4d0a-9d0e-6a1b2c3d4e5f"),
                ("operation", operation),
                ("service", "provisioning"),
                ("epoch", "1"),
                ("seq", "3"),
                ("log", "acme"),
                ("body_bytes", bytes.as_str()),
            ]
        );
    }

    #[test]
    fn times_are_microseconds_since_1970() {
        assert_eq!(micros("1970-01-01T00:00:00.000000Z"), Some(0));
        assert_eq!(micros("2000-02-29T12:34:56.789012Z"), Some(951_827_696_789_012));
        assert_eq!(micros("2026-11-22T18:01:08.000001Z"), Some(1_795_370_468_000_001));
        assert_eq!(micros("2026-11-22T18:01:08Z"), None);
        assert_eq!(micros("2026-11-22T18:01:08.0000a1Z"), None);
    }
}
