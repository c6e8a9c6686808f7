//! The paths of masks: how they are written, and what they lead to.

use pavior_core::nearest::listed;
use prost_reflect::{DynamicMessage, FieldDescriptor, MapKey, MessageDescriptor, Value};

/// Which fields a path may name.
pub(super) type Admits = fn(&MessageDescriptor, &FieldDescriptor) -> bool;

/// The fields that there are where a path goes wrong, with their whole paths.
pub(super) fn near(descriptor: &MessageDescriptor, text: &str, admits: Admits) -> String {
    let parents = text.rsplit_once('.').map(|(parents, _)| parents);
    let inside = parents.and_then(|parents| Some((parents, inner(descriptor, &split(parents)?, admits)?)));
    let (prefix, message) = match inside {
        Some((parents, message)) => (format!("{parents}."), message),
        None => (String::new(), descriptor.clone()),
    };
    let known = message.fields().filter(|field| admits(&message, field));
    let paths: Vec<String> = known.map(|field| format!("{prefix}{}", field.name())).collect();
    listed(text, paths.iter().map(String::as_str))
}

/// The message at a path.
fn inner(descriptor: &MessageDescriptor, path: &[String], admits: Admits) -> Option<MessageDescriptor> {
    path.iter().try_fold(descriptor.clone(), |message, name| {
        let field = message.get_field_by_name(name).filter(|field| admits(&message, field))?;
        field.kind().as_message().filter(|_| !field.is_list() && !field.is_map()).cloned()
    })
}

/// Splits at dots; a segment in backticks may hold any character, a backtick doubled.
pub(super) fn split(text: &str) -> Option<Vec<String>> {
    let mut path = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let mut segment = String::new();
        if chars.next_if_eq(&'`').is_some() {
            loop {
                match chars.next()? {
                    '`' if chars.next_if_eq(&'`').is_some() => segment.push('`'),
                    '`' => break,
                    other => segment.push(other),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != '.') {
                segment.push(c);
            }
            if segment.is_empty() {
                return None;
            }
        }
        path.push(segment);
        match chars.next() {
            None => return Some(path),
            Some('.') => {}
            Some(_) => return None,
        }
    }
}

/// `None` for an unknown path, else whether a mask may name all of its fields.
pub(super) fn locate(descriptor: &MessageDescriptor, path: &[String], admits: Admits) -> Option<bool> {
    let [first, rest @ ..] = path else { return None };
    if is_struct(descriptor) {
        return rest.is_empty().then_some(true);
    }
    let field = descriptor.get_field_by_name(first)?;
    if !admits(descriptor, &field) {
        return Some(false);
    }
    if rest.is_empty() {
        return Some(true);
    }
    if field.is_map() {
        return (rest.len() == 1).then_some(true);
    }
    match field.kind().as_message() {
        Some(inner) if !field.is_list() => locate(inner, rest, admits),
        _ => None,
    }
}

pub(super) fn is_struct(descriptor: &MessageDescriptor) -> bool {
    descriptor.full_name() == "google.protobuf.Struct"
}

/// Takes an entry of a map from another message, or removes it where that has none.
pub(super) fn apply_key(
    target: &mut DynamicMessage,
    patch: &DynamicMessage,
    field: &FieldDescriptor,
    key: &str,
) {
    let key = MapKey::String(key.to_owned());
    let from = patch.get_field(field).as_map().and_then(|map| map.get(&key)).cloned();
    if let Value::Map(map) = target.get_field_mut(field) {
        match from {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}
