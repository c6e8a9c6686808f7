//! Messages in the JSON form of protobuf, by their descriptors.

use std::collections::HashSet;
use std::fmt;

use pavior_core::Fault;
use pavior_core::nearest::listed;
use pavior_rpc::problem::{ErrorReason, Problem};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions,
};
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_path_to_error::Segment;

/// How `prost-reflect` begins to tell of a field that there is not; the name follows in quotes.
const UNKNOWN: &str = "unrecognized field name '";

/// Values in one request, and messages in one answer. Each takes much more room than its text until it is written out
/// again, so that a few megabytes of the smallest would take gigabytes.
const MAX_VALUES: usize = 100_000;

/// Messages in one another; the decoder refuses more.
const MAX_DEPTH: u32 = 100;

fn strict() -> DeserializeOptions {
    DeserializeOptions::new().deny_unknown_fields(true)
}

/// A message of JSON that stands in the request at `place` (empty for the request itself).
///
/// # Errors
/// INVALID_ARGUMENT with the field that is wrong, unknown ones included.
pub(crate) fn read(message: &MessageDescriptor, place: &str, text: &[u8]) -> Result<DynamicMessage, Problem> {
    if values(text) > MAX_VALUES {
        let problem =
            Problem::invalid_field(place, Fault::TooMany, format!("holds more than {MAX_VALUES} values"));
        return Err(problem.with("limitValues", MAX_VALUES.to_string()));
    }
    if let Some(field) = twice(message, place, text) {
        return Err(Problem::invalid_field(field, Fault::Conflict, "is given more than once"));
    }
    let mut reader = Deserializer::from_slice(text);
    let read = DynamicMessage::deserialize_with_options(message.clone(), &mut reader, &strict());
    match read.and_then(|read| reader.end().map(|()| read)) {
        Ok(read) => Ok(read),
        Err(error) => Err(wrong(message, place, text, &error)),
    }
}

/// How many values a text holds at most: what stands outside of strings between commas and brackets.
fn values(text: &[u8]) -> usize {
    let (mut count, mut inside, mut escaped) = (1, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b',' | b'[' | b'{' if !inside => count += 1,
            _ => {}
        }
    }
    count
}

/// Where a value stands, on the way down to it.
#[derive(Clone)]
enum Inside {
    Message(MessageDescriptor),
    Map(FieldDescriptor),
    /// A value, or what a caller made up: it has no fields with names of ours.
    Value,
}

impl Inside {
    fn of(kind: &Kind) -> Self {
        match kind {
            Kind::Message(inner) if !inner.full_name().starts_with("google.protobuf.") => {
                Self::Message(inner.clone())
            }
            _ => Self::Value,
        }
    }

    /// The name of a member, as the protos have it; its field, if it is one of ours, and what it holds.
    fn member(&self, key: &str) -> (String, Option<FieldDescriptor>, Self) {
        let (name, field) = match self {
            Self::Message(message) => {
                let field = message.get_field_by_json_name(key).or_else(|| message.get_field_by_name(key));
                (field.as_ref().map_or(key, |field| field.name()).to_owned(), field)
            }
            Self::Map(map) => {
                (key.to_owned(), map.kind().as_message().map(MessageDescriptor::map_entry_value_field))
            }
            Self::Value => (key.to_owned(), None),
        };
        let inside = match &field {
            Some(field) if field.is_map() => Self::Map(field.clone()),
            Some(field) => Self::of(&field.kind()),
            None => Self::Value,
        };
        (name, field, inside)
    }
}

/// The first member that an object in the text has more than once, whichever of its two names is written: readers of
/// JSON differ in which of them counts. None for text that is no JSON, which is told otherwise.
fn twice(message: &MessageDescriptor, place: &str, text: &[u8]) -> Option<String> {
    let mut names: Vec<String> =
        Some(place.to_owned()).filter(|place| !place.is_empty()).into_iter().collect();
    let mut found = None;
    let walk = Members { names: &mut names, found: &mut found, inside: Inside::Message(message.clone()) };
    // It ends at what is found, and at what is no JSON.
    let _ = walk.deserialize(&mut Deserializer::from_slice(text));
    found
}

/// Goes through all members of a value.
struct Members<'w> {
    /// Those that lead to it.
    names: &'w mut Vec<String>,
    found: &'w mut Option<String>,
    inside: Inside,
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { names, found, inside } = self;
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let (name, _, inside) = inside.member(&key);
            names.push(name.clone());
            if !seen.insert(name) {
                *found = Some(names.join("."));
                return Err(A::Error::custom("a member is given more than once"));
            }
            map.next_value_seed(Members { names, found, inside })?;
            names.pop();
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { names, found, inside } = self;
        let list_name = names.pop().unwrap_or_default();
        for index in 0.. {
            names.push(format!("{list_name}[{index}]"));
            let inside = inside.clone();
            if list.next_element_seed(Members { names, found, inside })?.is_none() {
                break;
            }
            names.pop();
        }
        names.pop();
        names.push(list_name);
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads once more, only to find out where the mistake is.
fn wrong(message: &MessageDescriptor, place: &str, text: &[u8], error: &serde_json::Error) -> Problem {
    let what = error.to_string();
    let mut reader = Deserializer::from_slice(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut reader, &mut track);
    let failed = DynamicMessage::deserialize_with_options(message.clone(), tracked, &strict()).is_err();
    let mut names: Vec<String> =
        Some(place.to_owned()).filter(|place| !place.is_empty()).into_iter().collect();
    let mut inside = Inside::Message(message.clone());
    // The field of the value that is wrong; none where the mistake is not in the value of one.
    let mut field: Option<FieldDescriptor> = None;
    let path = track.path();
    for segment in path.iter().take_while(|_| failed) {
        match (segment, &inside) {
            (Segment::Seq { index }, _) => {
                if let Some(last) = names.last_mut() {
                    last.push_str(&format!("[{index}]"));
                }
            }
            (Segment::Map { key }, Inside::Message(_) | Inside::Map(_)) => {
                let name;
                (name, field, inside) = inside.member(key);
                names.push(name);
            }
            _ => {
                field = None;
                break;
            }
        }
    }
    match (what.strip_prefix(UNKNOWN).and_then(|rest| rest.split_once('\'')), inside) {
        (Some((name, _)), Inside::Message(message)) => {
            names.push(name.to_owned());
            Problem::invalid_field(names.join("."), Fault::Unknown, no_field(&message, name))
        }
        _ => {
            let text = match field.filter(|_| error.is_data()) {
                Some(field) => format!("must be {} ({what})", expected(&field)),
                None => format!("is not the JSON of this field: {what}"),
            };
            Problem::invalid_field(names.join("."), Fault::Syntax, text)
        }
    }
}

/// A name that is none of a message's fields, with those that it may stand for.
pub(crate) fn no_field(message: &MessageDescriptor, name: &str) -> String {
    let fields: Vec<String> = message.fields().map(|field| field.name().to_owned()).collect();
    let known = listed(name, fields.iter().map(String::as_str));
    format!("is no field of `{}`; its fields are {known}", message.full_name())
}

/// What a single value of a field is written like.
pub(crate) fn expected(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Enum(values) => {
            let names: Vec<String> = values.values().map(|value| format!("`{}`", value.name())).collect();
            format!("one of {}", names.join(", "))
        }
        Kind::Message(inner) => match inner.full_name() {
            "google.protobuf.Timestamp" => "a time such as `2026-01-31T12:00:00Z`".to_owned(),
            "google.protobuf.Duration" => "a duration such as `20s`".to_owned(),
            "google.protobuf.FieldMask" => "text of paths such as `displayName,labels`".to_owned(),
            other => format!("a `{other}`"),
        },
        Kind::Bytes => "base64".to_owned(),
        Kind::String => "text".to_owned(),
        Kind::Bool => "`true` or `false`".to_owned(),
        kind => format!("a number of the kind {kind:?}").to_ascii_lowercase(),
    }
}

/// The JSON of a message. Fields that have their default value are left out, as everywhere in protobuf's JSON.
///
/// # Errors
/// INTERNAL when a message holds what has no JSON, such as an `Any` of a type that is not of this API.
pub(crate) fn write(message: &DynamicMessage) -> Result<Vec<u8>, Problem> {
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::new(&mut text);
    message
        .serialize_with_options(&mut writer, &SerializeOptions::new())
        .map_err(|error| Problem::internal(format!("an answer has no JSON: {error}")))?;
    Ok(text)
}

/// An encoded message with its descriptor.
///
/// # Errors
/// INTERNAL when the bytes are not the message, RESOURCE_EXHAUSTED when it holds more than can be written as JSON.
pub(crate) fn decode(message: &MessageDescriptor, bytes: &[u8]) -> Result<DynamicMessage, Problem> {
    let broken =
        |error: String| Problem::internal(format!("an answer is not a `{}`: {error}", message.full_name()));
    let mut left = MAX_VALUES;
    match count(message, bytes, &mut left, MAX_DEPTH) {
        Err(Stop::TooMany) => {
            let what =
                format!("the answer holds more than {MAX_VALUES} messages, which is too much for JSON");
            let problem = Problem::resource_exhausted(ErrorReason::MessageTooLarge, what);
            return Err(problem.with("limitMessages", MAX_VALUES.to_string()));
        }
        Err(Stop::Broken(error)) => return Err(broken(error.to_string())),
        Ok(()) => {}
    }
    DynamicMessage::decode(message.clone(), bytes).map_err(|error| broken(error.to_string()))
}

enum Stop {
    TooMany,
    Broken(DecodeError),
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Self {
        Self::Broken(error)
    }
}

/// Counts the messages in one another down, without decoding them.
fn count(message: &MessageDescriptor, mut bytes: &[u8], left: &mut usize, depth: u32) -> Result<(), Stop> {
    *left = left.checked_sub(1).ok_or(Stop::TooMany)?;
    while !bytes.is_empty() {
        let (number, wire) = decode_key(&mut bytes)?;
        let field = message.get_field(number).filter(|_| wire == WireType::LengthDelimited);
        if let Some(Kind::Message(inner)) = field.map(|field| field.kind()) {
            let length = decode_varint(&mut bytes)?;
            let cut = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length));
            // What is cut off or too deep is refused by the decoder.
            let (Some((data, rest)), Some(depth)) = (cut, depth.checked_sub(1)) else { return Ok(()) };
            count(&inner, data, left, depth)?;
            bytes = rest;
        } else {
            skip_field(wire, number, &mut bytes, DecodeContext::default())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pavior_rpc::convert;
    use prost::Message as _;

    use super::*;

    fn descriptor(name: &str) -> MessageDescriptor {
        convert::pool().get_message_by_name(name).unwrap()
    }

    #[test]
    fn the_field_that_is_wrong_is_named_as_the_protos_name_it() {
        let request = descriptor("pavior.catalog.v1.UpdateEntityRequest");
        for (text, field) in [
            (r#"{"entity": {"nope": 1}}"#, "entity.nope"),
            (r#"{"entity": {"displayName": 1}}"#, "entity.display_name"),
            (r#"{"entity": {"display_name": 1}}"#, "entity.display_name"),
            (r#"{"entity": {"labels": {"a": 1}}}"#, "entity.labels.a"),
            (r#"{"requestID": "x"}"#, "requestID"),
            (r#"{"updateMask": 5}"#, "update_mask"),
            (r#"{"entity": "#, "entity"),
            ("", ""),
            ("[]", ""),
            ("{} {}", ""),
            ("\u{feff}{}", ""),
        ] {
            let problem = read(&request, "", text.as_bytes()).unwrap_err();
            let fields: Vec<&str> = problem.violations.iter().map(|one| one.field.as_str()).collect();
            assert_eq!(fields, [field], "{text}: {problem}");
        }
        let told = |message: &str, text: &str| {
            let problem = read(&descriptor(message), "", text.as_bytes()).unwrap_err();
            (problem.violations[0].field.clone(), problem.violations[0].description.clone())
        };
        let (field, text) = told("pavior.catalog.v1.UpdateEntityRequest", r#"{"entity": {"onwer": "x"}}"#);
        assert_eq!(field, "entity.onwer");
        let start = "is no field of `pavior.catalog.v1.Entity`; its fields are `owner`, ";
        assert!(text.starts_with(start) && text.contains(" more"), "{text}");
        for (message, json, field, wanted) in [
            (
                "google.longrunning.WaitOperationRequest",
                r#"{"timeout": "5"}"#,
                "timeout",
                "a duration such as `20s`",
            ),
            (
                "google.longrunning.WaitOperationRequest",
                r#"{"timeout": 5}"#,
                "timeout",
                "a duration such as `20s`",
            ),
            (
                "pavior.catalog.v1.Entity",
                r#"{"createTime": "now"}"#,
                "create_time",
                "a time such as `2026-01-31T12:00:00Z`",
            ),
            (
                "google.api.FieldInfo",
                r#"{"format": "UUID9"}"#,
                "format",
                "one of `FORMAT_UNSPECIFIED`, `UUID4`",
            ),
        ] {
            let (named, text) = told(message, json);
            assert_eq!(named, field);
            assert!(text.starts_with(&format!("must be {wanted}")), "{text}");
        }
        let problem = read(&descriptor("pavior.catalog.v1.Entity"), "entity", br#"{"nope": 1}"#).unwrap_err();
        assert_eq!(problem.violations[0].field, "entity.nope");
    }

    #[test]
    fn a_member_that_is_given_twice_is_refused_under_either_name() {
        let request = descriptor("pavior.catalog.v1.UpdateEntityRequest");
        for (text, field) in [
            (r#"{"requestId": "a", "requestId": "b"}"#, "request_id"),
            (r#"{"entity": {"displayName": "a", "owner": "x", "display_name": "b"}}"#, "entity.display_name"),
            (r#"{"entity": {"labels": {"a": "1", "a": "1"}}}"#, "entity.labels.a"),
            (
                r#"{"entity": {"links": [{"url": "a"}, {"url": "a", "\u0075rl": "b"}]}}"#,
                "entity.links[1].url",
            ),
            (r#"{"entity": {"spec": {"a": [[{"b": 1, "c": null, "b": 2}]]}}}"#, "entity.spec.a[0][0].b"),
        ] {
            let problem = read(&request, "", text.as_bytes()).unwrap_err();
            let found = &problem.violations[0];
            assert_eq!(
                (found.field.as_str(), found.description.as_str()),
                (field, "is given more than once")
            );
        }
        let entity = descriptor("pavior.catalog.v1.Entity");
        let problem = read(&entity, "entity", br#"{"owner": "a", "owner": "a"}"#).unwrap_err();
        assert_eq!(problem.violations[0].field, "entity.owner");
        // The same name in different objects is no repetition.
        let text =
            br#"{"links": [{"url": "a"}, {"url": "b"}], "labels": {"url": "a"}, "spec": {"url": -1.5}}"#;
        read(&entity, "", text).unwrap();
    }

    #[test]
    fn numbers_may_be_texts_and_large_ones_come_out_as_texts() {
        let request = descriptor("pavior.audit.v1.ProveInclusionRequest");
        let one = read(&request, "", br#"{"index": "9007199254740993", "treeSize": 2e1}"#).unwrap();
        assert_eq!(write(&one).unwrap(), br#"{"index":"9007199254740993","treeSize":"20"}"#);
        assert_eq!(decode(&request, &one.encode_to_vec()).unwrap(), one);
        for text in [r#"{"index": 1.5}"#, r#"{"index": "x"}"#, r#"{"index": 9e99}"#] {
            assert_eq!(
                read(&request, "", text.as_bytes()).unwrap_err().violations[0].field,
                "index",
                "{text}"
            );
        }
    }

    #[test]
    fn what_would_take_far_more_room_than_its_text_is_refused() {
        let entity = descriptor("pavior.catalog.v1.Entity");
        let nested = |count: usize| format!("{{\"spec\": {{\"a\": [{}0]}}}}", "0,".repeat(count));
        assert!(read(&entity, "entity", nested(50_000).as_bytes()).is_ok());
        let problem = read(&entity, "entity", nested(200_000).as_bytes()).unwrap_err();
        assert_eq!(problem.violations[0].field, "entity");
        assert_eq!(problem.metadata["limitValues"], "100000");
        // Texts are counted as one, whatever is in them.
        let text = format!("{{\"displayName\": \"{}\\\",\"}}", "[,{".repeat(200_000));
        assert_eq!(values(text.as_bytes()), 2);
        let list = prost_types::ListValue {
            values: vec![
                prost_types::Value { kind: Some(prost_types::value::Kind::BoolValue(true)) };
                200_000
            ],
        };
        let value = prost_types::Value { kind: Some(prost_types::value::Kind::ListValue(list)) };
        let spec = prost_types::Struct { fields: [("a".to_owned(), value)].into() };
        let large = pavior_proto::pavior::catalog::v1::Entity { spec: Some(spec), ..Default::default() };
        let problem = decode(&entity, &large.encode_to_vec()).unwrap_err();
        assert_eq!(
            (problem.code, problem.reason),
            (tonic::Code::ResourceExhausted, ErrorReason::MessageTooLarge)
        );
    }
}
