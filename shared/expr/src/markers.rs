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

/// The dotted path of the first place that is, or could become, a marker; empty for the value itself. What people write
/// may have none: markers are made by the platform alone.
#[must_use]
pub fn marker_path(value: &Value) -> Option<String> {
    let join = |part: &str, below: String| {
        if below.is_empty() { part.to_owned() } else { format!("{part}.{below}") }
    };
    match value {
        Value::Object(map) if map.contains_key(UNKNOWN) || map.contains_key(SECRET) => Some(String::new()),
        Value::Object(map) => map.iter().find_map(|(key, item)| Some(join(key, marker_path(item)?))),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(at, item)| Some(join(&at.to_string(), marker_path(item)?)))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_found_wherever_they_stand() {
        for (value, path) in [
            (json!({"$secret": "a"}), Some("")),
            (json!({"$unknown": 1, "more": 2}), Some("")),
            (json!({"a": [1, {"b": {"$secret": "x"}}]}), Some("a.1.b")),
            (json!({"a": ["$secret", {"secret": "$secret"}]}), None),
            (json!("$secret"), None),
        ] {
            assert_eq!(marker_path(&value).as_deref(), path, "{value}");
        }
    }
}
