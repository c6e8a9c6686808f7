//! Fields of a request that are given as text: in the path and in the query.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};
use serde_json::json;

const MASK: &str = "google.protobuf.FieldMask";

/// Messages that JSON writes as one text, so that they can stand in a query.
fn is_text(message: &MessageDescriptor) -> bool {
    let name = message.full_name();
    let wrapper =
        name.starts_with("google.protobuf.") && name.ends_with("Value") && message.fields().len() == 1;
    wrapper || [MASK, "google.protobuf.Timestamp", "google.protobuf.Duration"].contains(&name)
}

/// Finds a field by a dotted path of names, each as in the protos or as in JSON. Gives the fields on the way, the last
/// one being that of a value that can be written as text.
pub(crate) fn find(request: &MessageDescriptor, path: &str) -> Result<Vec<FieldDescriptor>, String> {
    let mut message = request.clone();
    let mut found: Vec<FieldDescriptor> = Vec::new();
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let field = message
            .get_field_by_name(name)
            .or_else(|| message.get_field_by_json_name(name))
            .ok_or_else(|| super::json::no_field(&message, name))?;
        found.push(field.clone());
        match (field.kind(), names.peek()) {
            _ if field.is_map() => return Err("is a map, which cannot be given in the query".to_owned()),
            (Kind::Message(inner), None) if !is_text(&inner) => {
                return Err("is a message: give its fields, for example `a.b=c`".to_owned());
            }
            (_, None) => return Ok(found),
            (Kind::Message(inner), Some(_)) if !field.is_list() && !is_text(&inner) => message = inner,
            (_, Some(_)) => return Err(format!("has no fields behind `{name}`")),
        }
    }
    Err("has no name".to_owned())
}

/// The path of fields as the protos write it.
pub(crate) fn name(fields: &[FieldDescriptor]) -> String {
    fields.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
}

/// Sets the field at the end of a path, or adds to it when it is repeated.
///
/// # Errors
/// Why the text is no value of it.
pub(crate) fn set(
    message: &mut DynamicMessage,
    fields: &[FieldDescriptor],
    text: &str,
) -> Result<(), String> {
    let Some((field, rest)) = fields.split_first() else { return Err("has no name".to_owned()) };
    if let Some(oneof) = field.containing_oneof()
        && let Some(other) = oneof.fields().find(|other| other != field && message.has_field(other))
    {
        return Err(format!("cannot be given beside `{}`", other.name()));
    }
    if !rest.is_empty() {
        let inner = message.get_field_mut(field).as_message_mut().ok_or("is no message")?;
        return set(inner, rest, text);
    }
    let value = value(field, text)?;
    match (message.get_field_mut(field), value) {
        (Value::List(list), Value::List(more)) => list.extend(more),
        (place, value) => *place = value,
    }
    Ok(())
}

/// Of an empty text there is none: a field that is set to its default.
fn value(field: &FieldDescriptor, text: &str) -> Result<Value, String> {
    let number = || text.parse::<i32>().ok();
    let json = match field.kind() {
        Kind::Message(inner) if inner.full_name() == MASK => return mask(&inner, text),
        Kind::Bool => json!(text.parse::<bool>().map_err(|_| "must be `true` or `false`")?),
        Kind::Message(inner) if inner.full_name() == "google.protobuf.BoolValue" => {
            json!(text.parse::<bool>().map_err(|_| "must be `true` or `false`")?)
        }
        Kind::Enum(_) if number().is_some() => json!(number()),
        _ => json!(text),
    };
    let json = if field.is_list() { json!([json]) } else { json };
    let holder = json!({ field.json_name(): json }).to_string();
    let read = super::json::read(field.parent_message(), "", holder.as_bytes());
    let message = read.map_err(|_| format!("`{text}` is not {}", super::json::expected(field)))?;
    Ok(message.get_field(field).into_owned())
}

/// Paths, divided by commas, in the names of the protos or of JSON. What stands in backticks is a key, and left alone.
fn mask(message: &MessageDescriptor, text: &str) -> Result<Value, String> {
    let mut paths = vec![String::new()];
    let mut key = false;
    for char in text.chars() {
        key ^= char == '`';
        let Some(path) = paths.last_mut() else { continue };
        match char {
            ',' if !key => paths.push(String::new()),
            upper if upper.is_ascii_uppercase() && !key => {
                path.push('_');
                path.push(upper.to_ascii_lowercase());
            }
            other => path.push(other),
        }
    }
    let paths = paths.iter().map(|path| path.trim()).filter(|path| !path.is_empty());
    let mut made = DynamicMessage::new(message.clone());
    let list = Value::List(paths.map(|path| Value::String(path.to_owned())).collect());
    made.try_set_field_by_name("paths", list).map_err(|error| error.to_string())?;
    Ok(Value::Message(made))
}

/// Whether the field at the end of a path has a value.
pub(crate) fn given(message: &DynamicMessage, fields: &[FieldDescriptor]) -> Option<Value> {
    let (field, rest) = fields.split_first()?;
    if !message.has_field(field) {
        return None;
    }
    let value = message.get_field(field);
    match rest {
        [] => Some(value.into_owned()),
        rest => given(value.as_message()?, rest),
    }
}

/// A message of the same kind in which nothing is set.
pub(crate) fn empty(message: &MessageDescriptor) -> DynamicMessage {
    let made = DynamicMessage::new(message.clone());
    debug_assert_eq!(made.descriptor(), *message);
    made
}

#[cfg(test)]
mod tests {
    use pavior_rpc::convert;

    use super::*;

    fn read(message: &str, pairs: &[(&str, &str)]) -> Result<serde_json::Value, String> {
        let descriptor = convert::pool().get_message_by_name(message).unwrap();
        let mut made = DynamicMessage::new(descriptor.clone());
        for (path, text) in pairs {
            set(&mut made, &find(&descriptor, path)?, text)?;
        }
        Ok(serde_json::from_slice(&crate::web::json::write(&made).unwrap()).unwrap())
    }

    #[test]
    fn texts_become_fields_of_every_kind() {
        const UPDATE: &str = "pavior.catalog.v1.UpdateEntityRequest";
        let cases = [
            (UPDATE, "entity.display_name", "x", json!({"entity": {"displayName": "x"}})),
            (UPDATE, "entity.displayName", "x", json!({"entity": {"displayName": "x"}})),
            (UPDATE, "updateMask", "displayName,labels.`aB,c`", json!(null)),
            (UPDATE, "validate_only", "true", json!({"validateOnly": true})),
            ("pavior.audit.v1.ProveInclusionRequest", "index", "-7", json!({"index": "-7"})),
            ("pavior.catalog.v1.ListEntitiesRequest", "page_size", "7", json!({"pageSize": 7})),
            ("google.longrunning.WaitOperationRequest", "timeout", "1.5s", json!({"timeout": "1.500s"})),
            (
                "pavior.catalog.v1.Entity",
                "create_time",
                "2026-01-31T12:00:00Z",
                json!({"createTime": "2026-01-31T12:00:00Z"}),
            ),
            ("google.api.FieldInfo", "format", "UUID4", json!({"format": "UUID4"})),
            ("google.api.FieldInfo", "format", "1", json!({"format": "UUID4"})),
            ("pavior.driver.v1.DriverConfig", "x", "", json!(null)),
        ];
        for (message, path, text, expected) in cases {
            if expected.is_null() {
                continue;
            }
            assert_eq!(read(message, &[(path, text)]), Ok(expected), "{message} {path}={text}");
        }
        let names = [("names", "a"), ("names", "b")];
        assert_eq!(
            read("pavior.catalog.v1.BatchGetEntitiesRequest", &names),
            Ok(json!({"names": ["a", "b"]}))
        );
    }

    #[test]
    fn masks_are_taken_as_the_protos_and_as_json_write_them() {
        let descriptor = convert::pool().get_message_by_name(MASK).unwrap();
        for (text, paths) in [
            ("displayName,owner", vec!["display_name", "owner"]),
            ("display_name, owner,", vec!["display_name", "owner"]),
            ("labels.`aB,c_d`", vec!["labels.`aB,c_d`"]),
            ("", vec![]),
        ] {
            let Value::Message(mask) = mask(&descriptor, text).unwrap() else { panic!() };
            let mask: prost_types::FieldMask = mask.transcode_to().unwrap();
            assert_eq!(mask.paths, paths, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_given_as_text_is_said() {
        const UPDATE: &str = "pavior.catalog.v1.UpdateEntityRequest";
        for (message, path, text, what) in [
            (UPDATE, "nope", "x", "is no field of `pavior.catalog.v1.UpdateEntityRequest`"),
            (UPDATE, "entity.nope", "x", "is no field of `pavior.catalog.v1.Entity`"),
            (UPDATE, "entity", "x", "is a message"),
            (UPDATE, "entity.labels", "x", "is a map"),
            (UPDATE, "request_id.x", "x", "has no fields behind `request_id`"),
            (UPDATE, "", "x", "is no field"),
            (UPDATE, "validate_only", "1", "`true` or `false`"),
            ("pavior.catalog.v1.ListEntitiesRequest", "page_size", "x", "`x` is not a number"),
            ("google.longrunning.WaitOperationRequest", "timeout", "5", "a duration such as `20s`"),
            ("google.api.FieldInfo", "format", "UUID9", "one of `FORMAT_UNSPECIFIED`, `UUID4`"),
        ] {
            let problem = read(message, &[(path, text)]).unwrap_err();
            assert!(problem.contains(what), "{path}={text}: {problem}");
        }
        let both = [("log_line.step_id", "build"), ("bookmark", "")];
        let problem = read("pavior.provisioning.v1.WatchOperationResponse", &both).unwrap_err();
        assert!(problem.contains("is a message"), "{problem}");
    }
}
