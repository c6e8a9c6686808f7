//! JSON Schemas as their authors write them.

use super::{Violations, text};
use crate::json::{Json, JsonMap};
use pavior_core::Fault;

/// A JSON Schema: an object whose keys keep their order, because it is the order of a form. Two that differ in nothing else
/// are two schemas.
#[derive(Debug, Clone)]
pub(crate) struct Schema(Json);

impl Schema {
    /// Of JSON text; an empty one allows everything.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        match text.parse::<Json>() {
            Ok(schema @ Json::Object(_)) => Ok(Self(schema)),
            Ok(_) => Err("must be the text of a JSON object".to_owned()),
            Err(error) => Err(format!("is not JSON: {error}")),
        }
    }

    /// As JSON text in its own order; empty when it allows everything.
    pub(crate) fn text(&self) -> String {
        if self.0 == Self::default().0 { String::new() } else { self.0.to_string() }
    }

    /// As a value.
    pub(crate) fn value(&self) -> &Json {
        &self.0
    }

    /// What is wrong with it, where it stands at `path`.
    pub(crate) fn check(&self, violations: &mut Violations, path: &str) {
        text::json(violations, path, &self.0);
        if let Err(problems) = pavior_expr::schema::compile_check(&self.0) {
            for problem in problems {
                violations.add(super::violation_path(path, &problem.path), Fault::Syntax, problem.message);
            }
        }
    }
}

impl Default for Schema {
    fn default() -> Self {
        Self(Json::Object(JsonMap::new()))
    }
}

impl From<Json> for Schema {
    fn from(schema: Json) -> Self {
        Self(schema)
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_is_kept_and_counts() {
        let text = r#"{"type":"object","properties":{"size":{},"name":{},"area":{}}}"#;
        let schema = Schema::parse(text).unwrap();
        assert_eq!(schema.text(), text);
        let spaced = Schema::parse(&text.replace(':', " : ")).unwrap();
        assert_eq!(spaced, schema, "spaces do not count");
        let sorted = r#"{"properties":{"area":{},"name":{},"size":{}},"type":"object"}"#;
        assert_ne!(Schema::parse(sorted).unwrap(), schema);
        for empty in ["", "{}", " { } "] {
            assert_eq!(Schema::parse(empty), Ok(Schema::default()), "{empty:?}");
        }
        assert_eq!(Schema::default().text(), "");
        for (bad, wanted) in
            [("[]", "must be the text"), ("{", "is not JSON"), ("type: object", "is not JSON")]
        {
            assert!(Schema::parse(bad).unwrap_err().starts_with(wanted), "{bad}");
        }
    }
}
