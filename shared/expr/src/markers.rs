use serde_json::{Value, json};

const UNKNOWN: &str = "$unknown";
const SECRET: &str = "$secret";

/// The marker of a value that is known only at execution.
#[must_use]
pub fn unknown(expression: &str) -> Value {
    json!({ UNKNOWN: expression })
}

/// The marker of a secret.
#[must_use]
pub fn secret(reference: &str) -> Value {
    json!({ SECRET: reference })
}

fn marked<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    let map = value.as_object()?;
    if map.len() == 1 { map.get(key)?.as_str() } else { None }
}

/// Whether this is `{"$unknown": …}`.
#[must_use]
pub fn is_unknown(value: &Value) -> bool {
    marked(value, UNKNOWN).is_some()
}

/// Whether this is `{"$secret": …}`.
#[must_use]
pub fn is_secret(value: &Value) -> bool {
    marked(value, SECRET).is_some()
}

/// The name inside `{"$secret": name}`.
#[must_use]
pub fn secret_reference(value: &Value) -> Option<&str> {
    marked(value, SECRET)
}

/// Whether this is either marker.
#[must_use]
pub fn is_marker(value: &Value) -> bool {
    is_unknown(value) || is_secret(value)
}

/// Whether a marker stands anywhere in the value.
#[must_use]
pub fn contains_marker(value: &Value) -> bool {
    match value {
        _ if is_marker(value) => true,
        Value::Array(items) => items.iter().any(contains_marker),
        Value::Object(map) => map.values().any(contains_marker),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
