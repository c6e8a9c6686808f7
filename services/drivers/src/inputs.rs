//! Inputs from outside: each declared once, as a type, from which its schema is generated.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::LazyLock;
use std::time::Duration;

use pavior_driver::{Failure, FailureCode, ValidateRequest, Violation};
use pavior_expr::schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::Value;

/// The inputs of a type, or the arguments of an action: the struct `T` is the declaration, and its JSON Schema is
/// generated from it. Doc comments on the fields are the descriptions that people read.
pub(crate) struct Declared<T> {
    schema: LazyLock<Value>,
    as_type: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + JsonSchema> Declared<T> {
    pub(crate) const fn new() -> Self {
        Self { schema: LazyLock::new(generate::<T>), as_type: PhantomData }
    }

    /// The JSON Schema.
    pub(crate) fn schema(&self) -> Value {
        self.schema.clone()
    }

    /// The `validate` of every driver here: defaults filled in, every violation named.
    pub(crate) fn validate(&self, request: &ValidateRequest) -> Result<Value, Vec<Violation>> {
        let filled = schema::with_defaults(&self.schema, &request.inputs);
        let violations: Vec<Violation> = schema::validate_planned(&self.schema, &filled)
            .into_iter()
            .map(|found| Violation { path: found.pointer, message: found.message })
            .collect();
        if violations.is_empty() { Ok(filled) } else { Err(violations) }
    }

    /// The values as their type, or a failure that names the fields. Values are not shown: they may be secrets.
    pub(crate) fn read(&self, inputs: &Value) -> Result<T, Failure> {
        let filled = schema::with_defaults(&self.schema, inputs);
        let violations = schema::validate(&self.schema, &filled);
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
}

fn generate<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12().with_transform(Plain);
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.remove("title");
    schema.to_value()
}

/// Leaves out what a schema of inputs does not need. An optional field may be left out; `null` is not a value of it.
#[derive(Debug, Clone)]
struct Plain;

impl Transform for Plain {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                schema.insert("type".to_owned(), only);
            }
        }
        // The widths of Rust's integers, which JSON does not have.
        schema.remove("format");
        if schema.get("additionalProperties") == Some(&Value::Bool(true)) {
            schema.remove("additionalProperties");
        }
    }
}

// Environment variables by name.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("propertyNames" = {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}))]
pub(crate) struct Variables(pub(crate) BTreeMap<String, String>);

/// What names of resources and artifacts look like.
pub(crate) const NAME: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

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

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"], "minimum": 1, "maximum": 86400, "pattern": "^[1-9][0-9]{0,7}(ms|s|m|h)$",
            "description": "Such as `300s`, `5m`, `1h`, or a number of seconds."
        })
    }
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
    use serde_json::json;

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
