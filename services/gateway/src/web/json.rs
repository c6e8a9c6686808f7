//! Messages in the JSON form of protobuf, by their descriptors.

use pavior_rpc::problem::Problem;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions,
};
use serde_json::Deserializer;
use serde_path_to_error::Segment;

/// How `prost-reflect` begins to tell of a field that there is not; the name follows in quotes.
const UNKNOWN: &str = "unrecognized field name '";

fn strict() -> DeserializeOptions {
    DeserializeOptions::new().deny_unknown_fields(true)
}

/// A message of JSON that stands in the request at `place` (empty for the request itself).
///
/// # Errors
/// INVALID_ARGUMENT with the field that is wrong, unknown ones included.
pub(crate) fn read(message: &MessageDescriptor, place: &str, text: &[u8]) -> Result<DynamicMessage, Problem> {
    let mut reader = Deserializer::from_slice(text);
    let read = DynamicMessage::deserialize_with_options(message.clone(), &mut reader, &strict());
    match read.and_then(|read| reader.end().map(|()| read)) {
        Ok(read) => Ok(read),
        Err(error) => Err(wrong(message, place, text, &error.to_string())),
    }
}

/// Where a mistake is, on the way down to it.
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
}

/// Reads once more, only to find out where the mistake is.
fn wrong(message: &MessageDescriptor, place: &str, text: &[u8], what: &str) -> Problem {
    let mut reader = Deserializer::from_slice(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut reader, &mut track);
    let failed = DynamicMessage::deserialize_with_options(message.clone(), tracked, &strict()).is_err();
    let mut names: Vec<String> =
        Some(place.to_owned()).filter(|place| !place.is_empty()).into_iter().collect();
    let mut inside = Inside::Message(message.clone());
    let path = track.path();
    for segment in path.iter().take_while(|_| failed) {
        match (segment, &inside) {
            (Segment::Seq { index }, _) => {
                if let Some(last) = names.last_mut() {
                    last.push_str(&format!("[{index}]"));
                }
            }
            (Segment::Map { key }, Inside::Message(message)) => {
                let field = message.get_field_by_json_name(key).or_else(|| message.get_field_by_name(key));
                names.push(field.as_ref().map_or(key.as_str(), |field| field.name()).to_owned());
                inside = match field {
                    Some(field) if field.is_map() => Inside::Map(field),
                    Some(field) => Inside::of(&field.kind()),
                    None => Inside::Value,
                };
            }
            (Segment::Map { key }, Inside::Map(field)) => {
                names.push(key.clone());
                let entry = field.kind();
                let value = entry.as_message().map(MessageDescriptor::map_entry_value_field);
                inside = value.map_or(Inside::Value, |value| Inside::of(&value.kind()));
            }
            _ => break,
        }
    }
    match (what.strip_prefix(UNKNOWN).and_then(|rest| rest.split_once('\'')), inside) {
        (Some((name, _)), Inside::Message(message)) => {
            names.push(name.to_owned());
            Problem::invalid_field(names.join("."), format!("is no field of `{}`", message.full_name()))
        }
        _ => Problem::invalid_field(names.join("."), format!("is not the JSON of this field: {what}")),
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
/// INTERNAL when the bytes are not the message.
pub(crate) fn decode(message: &MessageDescriptor, bytes: &[u8]) -> Result<DynamicMessage, Problem> {
    DynamicMessage::decode(message.clone(), bytes)
        .map_err(|error| Problem::internal(format!("an answer is not a `{}`: {error}", message.full_name())))
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
        let problem = read(&descriptor("pavior.catalog.v1.Entity"), "entity", br#"{"nope": 1}"#).unwrap_err();
        assert_eq!(problem.violations[0].field, "entity.nope");
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
}
