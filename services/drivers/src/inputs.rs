//! Inputs from outside: schema first, then types.

use std::time::Duration;

use pavior_driver::{Failure, FailureCode, ValidateRequest, Violation};
use pavior_expr::schema;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Value, json};

/// The `validate` of every driver here: defaults filled in, every violation named.
pub(crate) fn validate(schema: &Value, request: &ValidateRequest) -> Result<Value, Vec<Violation>> {
    let filled = schema::with_defaults(schema, &request.inputs);
    let violations: Vec<Violation> = schema::validate_planned(schema, &filled)
        .into_iter()
        .map(|found| Violation { path: found.pointer, message: found.message })
        .collect();
    if violations.is_empty() { Ok(filled) } else { Err(violations) }
}

/// Inputs as a type, or a failure that names the fields. Values are not shown: they may be secrets.
pub(crate) fn typed<T: DeserializeOwned>(schema: &Value, inputs: &Value) -> Result<T, Failure> {
    let filled = schema::with_defaults(schema, inputs);
    let violations = schema::validate(schema, &filled);
    if let Some(first) = violations.first() {
        let fields: Vec<String> = violations.iter().map(|found| format!("`{}`", found.path)).collect();
        let why = match first.message.as_str() {
            "is required" | "is not a known field" => format!(": {}", first.message),
            _ => String::new(),
        };
        let message = format!("inputs are not as the type asks, see {}{why}", fields.join(", "));
        return Err(Failure::new(FailureCode::InvalidArgument, message));
    }
    serde_json::from_value(filled)
        .map_err(|_| Failure::new(FailureCode::InvalidArgument, "inputs are not as the type asks"))
}

/// A short name from a resource name's id: lower-case letters, digits and hyphens.
pub(crate) fn slug(text: &str, longest: usize) -> String {
    let mut slug: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(longest)
        .collect();
    while slug.ends_with('-') {
        slug.pop();
    }
    if slug.is_empty() { "x".to_owned() } else { slug }
}

/// A length of time as people write it: `300s`, `5m`, `1h`, `500ms`, or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

pub(crate) fn span_schema() -> Value {
    json!({"type": ["string", "integer"], "minimum": 1, "maximum": 86400, "pattern": "^[1-9][0-9]{0,7}(ms|s|m|h)$",
           "description": "Such as `300s`, `5m`, `1h`, or a number of seconds."})
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let bad = || D::Error::custom("not a length of time");
        if let Some(seconds) = value.as_u64() {
            return Ok(Self(Duration::from_secs(seconds)));
        }
        let text = value.as_str().ok_or_else(bad)?;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| bad())?;
        let milliseconds = match &text[digits..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(bad()),
        };
        Ok(Self(Duration::from_millis(number.saturating_mul(milliseconds))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        for (text, seconds) in [(json!("300s"), 300), (json!("5m"), 300), (json!("1h"), 3600), (json!(7), 7)]
        {
            assert_eq!(serde_json::from_value::<Span>(text).unwrap().0, Duration::from_secs(seconds));
        }
        assert!(serde_json::from_value::<Span>(json!("soon")).is_err());
    }

    #[test]
    fn slugs_are_names() {
        assert_eq!(slug("Ab_c!", 10), "ab-c");
        assert_eq!(slug("", 10), "x");
    }
}
