//! What the verifier reads in a record's bytes: only what stands beside them in columns, and who produced it.

use std::borrow::Cow;

use serde::Deserialize;

/// Separates columns in the comparison line. Records never carry control characters in these fields.
pub(crate) const SEPARATOR: char = '\u{1f}';

/// The columns of the comparison line, in its order, so that a difference can be named.
pub(crate) const COLUMNS: [&str; 18] = [
    "event_id",
    "receive_time",
    "event_time",
    "class",
    "action",
    "actor",
    "object",
    "object_type",
    "project",
    "effect",
    "status",
    "request_id",
    "operation",
    "service",
    "epoch",
    "seq",
    "log",
    "body_bytes",
];

/// The fields of a record that also stand in columns.
#[derive(Debug, Deserialize)]
pub(crate) struct Record<'a> {
    pub(crate) v: u32,
    #[serde(borrow)]
    pub(crate) log: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) event_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) producer: Producer<'a>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    received_at: Cow<'a, str>,
    #[serde(borrow)]
    class: Cow<'a, str>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    actor: Actor<'a>,
    #[serde(borrow)]
    object: Object<'a>,
    #[serde(borrow)]
    cause: Cause<'a>,
    #[serde(borrow, default)]
    decision: Option<Decision<'a>>,
    #[serde(borrow)]
    outcome: Outcome<'a>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Producer<'a> {
    #[serde(borrow)]
    pub(crate) service: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) epoch: Cow<'a, str>,
    pub(crate) seq: u64,
}

#[derive(Debug, Deserialize)]
struct Actor<'a> {
    #[serde(borrow, rename = "ref")]
    reference: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
struct Object<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    project: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
struct Cause<'a> {
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow, default)]
    parent_event: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
struct Decision<'a> {
    #[serde(borrow)]
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
        if self.producer.service != "audit" || self.action != "platform.restore" {
            return Ok(Vec::new());
        }
        let Restore { change: Detail { after: Gaps { gaps } } } =
            serde_json::from_slice(bytes).map_err(|e| format!("what it accepts is not readable: {e}"))?;
        Ok(gaps)
    }

    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let record: Self =
            serde_json::from_slice(bytes).map_err(|e| format!("the record is not readable: {e}"))?;
        if record.v != 1 {
            return Err(format!("the record has version {}, which this verifier does not know", record.v));
        }
        Ok(record)
    }

    /// Writes what the columns beside the record must say, in the order of [`COLUMNS`]; returns the time of receipt.
    pub(crate) fn comparison(&self, body_bytes: usize, line: &mut String) -> Result<i64, String> {
        use std::fmt::Write as _;
        line.clear();
        let received = micros(&self.received_at).ok_or("the record's `received_at` is not a time")?;
        let happened = micros(&self.time).ok_or("the record's `time` is not a time")?;
        let effect = self.decision.as_ref().map_or("", |d| &d.effect);
        write!(line, "{}{SEPARATOR}{received}{SEPARATOR}{happened}", self.event_id)
            .map_err(|e| e.to_string())?;
        for text in [
            &*self.class,
            &*self.action,
            &*self.actor.reference,
            &*self.object.name,
            &*self.object.kind,
            &*self.object.project,
            effect,
            &*self.outcome.status,
            &*self.cause.request_id,
            &*self.cause.parent_event,
            &*self.producer.service,
            &*self.producer.epoch,
        ] {
            line.push(SEPARATOR);
            line.push_str(text);
        }
        write!(line, "{SEPARATOR}{}{SEPARATOR}{}{SEPARATOR}{body_bytes}", self.producer.seq, self.log)
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
    use super::micros;

    #[test]
    fn times_are_microseconds_since_1970() {
        assert_eq!(micros("1970-01-01T00:00:00.000000Z"), Some(0));
        assert_eq!(micros("2000-02-29T12:34:56.789012Z"), Some(951_827_696_789_012));
        assert_eq!(micros("2026-11-22T18:01:08.000001Z"), Some(1_795_370_468_000_001));
        assert_eq!(micros("2026-11-22T18:01:08Z"), None);
        assert_eq!(micros("2026-11-22T18:01:08.0000a1Z"), None);
    }
}
