//! The bounds of an event: whatever was asked for, its record can be delivered and kept.
//!
//! A producer bounds an event in the transaction that makes it, so that nothing which is accepted can stand in the way
//! of what comes after it. First the values before the change give way to their digest, then those after it; other
//! texts have a length of their own.

use serde_json::{Value, json};

use super::{Affected, AuditEvent, Cause, Change, DecisionRef, Outcome, PrincipalRef};
use crate::digest::{canonical_json, sha256_digest};
use crate::value::deeper_than;

/// The largest event, in bytes of canonical JSON. An entity of 240 kB is told whole; the values before and after a
/// change of the largest resources are together more than this, and then those before it are told by digest.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;
/// How deep the values before and after may nest; each list or object is a level. Requests may nest 32 deep, and a
/// resource holds what was asked for some levels further down.
pub const MAX_VALUE_DEPTH: u32 = 64;
/// The longest text of an event, in bytes. Names come from requests, which may be refused for them and are recorded.
const MAX_TEXT: usize = 2_048;
/// Most affected resources that are told beside the target.
const MAX_AFFECTED: usize = 100;
/// The longest name of one of them, in bytes: more than any resource name has.
const MAX_NAME: usize = 320;
/// The longest type and project of one, in bytes.
const MAX_PLACE: usize = 192;
/// Most policies and approvals that are told.
const MAX_REFERENCES: usize = 64;
/// The longest of them, in bytes.
const MAX_REFERENCE: usize = 256;
/// Most members that are named of a value that is told by digest.
const MAX_MEMBERS: usize = 32;

impl AuditEvent {
    /// The same event within the bounds of this module; unchanged when it is within them already.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.cut_texts();
        let Some(change) = &mut self.change else { return self };
        let values = [&mut change.before, &mut change.after].into_iter().flatten();
        values.filter(|value| deeper_than(value, MAX_VALUE_DEPTH)).for_each(abridge);
        if self.bytes() > MAX_EVENT_BYTES {
            self.abridge_value(|change| &mut change.before);
        }
        if self.bytes() > MAX_EVENT_BYTES {
            self.abridge_value(|change| &mut change.after);
        }
        self
    }

    /// The same event with digests instead of all values; the least that can be told of it.
    #[must_use]
    pub fn abridged(mut self) -> Self {
        self.abridge_value(|change| &mut change.before);
        self.abridge_value(|change| &mut change.after);
        self.bounded()
    }

    /// How large the event is, in bytes of canonical JSON.
    pub fn bytes(&self) -> usize {
        serde_json::to_value(self).map_or(usize::MAX, |value| canonical_json(&value).len())
    }

    fn abridge_value(&mut self, which: impl Fn(&mut Change) -> &mut Option<Value>) {
        if let Some(value) = self.change.as_mut().and_then(|change| which(change).as_mut()) {
            abridge(value);
        }
    }

    fn cut_texts(&mut self) {
        let Self { action, principal, target, affected, cause, decision, outcome, change, summary, .. } =
            self;
        let PrincipalRef { kind: _, name, on_behalf_of, via, session_id } = principal;
        let Cause { call_id, request_id, trace_id, operation } = cause;
        let Outcome { status: _, code: _, reason, duration: _ } = outcome;
        let texts = [
            action,
            summary,
            name,
            on_behalf_of,
            via,
            session_id,
            call_id,
            request_id,
            trace_id,
            operation,
            reason,
        ];
        let place = target.iter_mut().flat_map(|Affected { r#type, name, project }| [r#type, name, project]);
        let digests =
            change.iter_mut().flat_map(|Change { request_digest, plan_digest, before: _, after: _ }| {
                [request_digest, plan_digest]
            });
        for text in texts.into_iter().chain(place).chain(digests) {
            cut(text, MAX_TEXT);
        }
        affected.truncate(MAX_AFFECTED);
        for Affected { r#type, name, project } in affected {
            cut(name, MAX_NAME);
            cut(r#type, MAX_PLACE);
            cut(project, MAX_PLACE);
        }
        if let Some(DecisionRef { decision, effect: _, policies_digest, rule_ids, approvals }) = decision {
            cut(decision, MAX_TEXT);
            cut(policies_digest, MAX_TEXT);
            for list in [rule_ids, approvals] {
                list.truncate(MAX_REFERENCES);
                list.iter_mut().for_each(|text| cut(text, MAX_REFERENCE));
            }
        }
    }
}

/// Cuts a text at a character's end and says so. Control characters, each of which would be written as six bytes,
/// cannot be part of any name and are replaced first.
fn cut(text: &mut String, max: usize) {
    if text.contains(char::is_control) {
        *text = text.replace(char::is_control, "\u{fffd}");
    }
    if text.len() > max {
        let mut end = max - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
}

/// Puts size, digest and the names of its members in place of a value. What is abridged already stays as it is.
pub fn abridge(value: &mut Value) {
    let alone = value.as_object().filter(|object| object.len() == 1).and_then(|object| object.get("omitted"));
    if alone.is_some_and(|omitted| omitted.get("digest").is_some()) {
        return;
    }
    let bytes = canonical_json(value);
    let members: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .take(MAX_MEMBERS)
        .map(|(name, _)| {
            let mut name = name.clone();
            cut(&mut name, MAX_REFERENCE);
            name
        })
        .collect();
    let digest = sha256_digest(&bytes);
    *value = json!({ "omitted": { "digest": digest, "bytes": bytes.len(), "members": members } });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::event;
    use super::*;

    fn nested(levels: u32) -> Value {
        (0..levels).fold(
            json!(1),
            |value, level| if level % 2 == 0 { json!([value]) } else { json!({ "a": value }) },
        )
    }

    fn changed(before: Option<Value>, after: Option<Value>) -> AuditEvent {
        AuditEvent { change: Some(Change { before, after, ..Change::default() }), ..event() }
    }

    #[test]
    fn an_entity_of_240_kb_is_told_whole_and_what_it_replaces_by_digest() {
        let spec = json!({ "name": "n", "spec": { "text": "x".repeat(240_000) } });
        let made = changed(None, Some(spec.clone()));
        assert_eq!(made.clone().bounded(), made);
        let updated = changed(Some(spec.clone()), Some(spec.clone())).bounded();
        let change = updated.change.clone().unwrap();
        assert_eq!(change.after.as_ref(), Some(&spec));
        let omitted = &change.before.unwrap()["omitted"];
        let bytes = canonical_json(&spec);
        assert_eq!(omitted["bytes"], bytes.len());
        assert_eq!(omitted["digest"], sha256_digest(&bytes));
        assert_eq!(omitted["members"], json!(["name", "spec"]));
        assert!(updated.bytes() <= MAX_EVENT_BYTES);
        // What is too large alone is told by digest alone, and doing it twice changes nothing.
        let huge = changed(None, Some(json!({ "text": "x".repeat(MAX_EVENT_BYTES) }))).bounded();
        assert!(huge.change.as_ref().unwrap().after.as_ref().unwrap()["omitted"]["digest"].is_string());
        assert_eq!(huge.clone().bounded(), huge);
        assert_eq!(huge.clone().abridged(), huge);
    }

    #[test]
    fn what_nests_too_deep_is_told_by_digest() {
        let at_limit = changed(None, Some(nested(MAX_VALUE_DEPTH)));
        assert_eq!(at_limit.clone().bounded(), at_limit);
        let beyond = changed(Some(nested(MAX_VALUE_DEPTH + 1)), None).bounded();
        assert!(beyond.change.unwrap().before.unwrap()["omitted"]["digest"].is_string());
    }

    #[test]
    fn names_of_affected_resources_are_told_whole() {
        let affected = |bytes: usize| {
            let other = Affected::new("catalog.pavior.dev/Entity", "n".repeat(bytes));
            let event = AuditEvent { affected: vec![Affected::default(), other], ..event() };
            event.bounded().affected[1].name.clone()
        };
        assert_eq!(affected(MAX_NAME), "n".repeat(MAX_NAME));
        assert_eq!(affected(MAX_NAME + 1), format!("{}…", "n".repeat(MAX_NAME - '…'.len_utf8())));
    }

    /// Longer than a text of an event may be, and worse to write down than it looks.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            ".{0,40}",
            "[\\x00-\\x1f\"\\\\]{0,40}",
            Just("\u{1}".repeat(MAX_TEXT + 1)),
            Just("é\"".repeat(MAX_TEXT)),
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        let size = prop_oneof![Just(0), Just(MAX_EVENT_BYTES / 2), Just(MAX_EVENT_BYTES)];
        (0_u32..90, size)
            .prop_map(|(levels, size)| json!({ "deep": nested(levels), "text": "\"".repeat(size) }))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn every_event_is_brought_within_the_bounds(
            texts in proptest::collection::vec(text(), 8),
            references in (0_usize..200, text()),
            before in proptest::option::of(value()),
            after in proptest::option::of(value()),
        ) {
            let mut event = changed(before, after);
            let [action, principal, name, summary, call, reason, operation, project] = texts.try_into().unwrap();
            event.action = action;
            event.principal.on_behalf_of = principal.clone();
            event.principal.name = principal;
            event.summary = summary;
            event.cause.call_id = call;
            event.cause.operation = operation;
            event.outcome.reason = reason;
            let list = vec![references.1.clone(); references.0];
            let other = Affected { r#type: references.1.clone(), name: references.1.clone(), project: references.1 };
            event.affected = vec![other; references.0];
            event.target = Some(Affected { name, project, ..Affected::default() });
            event.decision =
                Some(DecisionRef { rule_ids: list.clone(), approvals: list, ..DecisionRef::default() });
            let bounded = event.bounded();
            prop_assert!(bounded.bytes() <= MAX_EVENT_BYTES, "{}", bounded.bytes());
            // It survives the way through an outbox, and is bounded once and for all.
            let kept = serde_json::to_string(&bounded).unwrap();
            prop_assert_eq!(&serde_json::from_str::<AuditEvent>(&kept).unwrap(), &bounded);
            prop_assert_eq!(&bounded.clone().bounded(), &bounded);
        }
    }
}
