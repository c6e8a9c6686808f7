//! Resource types: the contract of what can be asked for.

use super::{Fields, Schema, Violations, text};
use crate::json::{Json, json};
use pavior_core::Fault;

/// The contract of a thing that can be asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ResourceTypeFields {
    pub(crate) display_name: String,
    pub(crate) description: String,
    pub(crate) input_schema: Schema,
    pub(crate) output_schema: Schema,
    pub(crate) secret_outputs: Vec<String>,
}

impl Fields for ResourceTypeFields {
    const SINGULAR: &'static str = "resource type";
    const TYPE: &'static str = "catalog.pavior.dev/ResourceType";

    fn name(&self, organization: &str, id: &str) -> String {
        format!("organizations/{organization}/resourceTypes/{id}")
    }

    fn check(&self, _organization: &str, _id: &str) -> Violations {
        let mut violations = Violations::new();
        self.input_schema.check(&mut violations, "input_schema_json");
        self.output_schema.check(&mut violations, "output_schema_json");
        let listed = properties(self.output_schema.value());
        for (index, output) in self.secret_outputs.iter().enumerate() {
            if listed.as_ref().is_some_and(|listed| !listed.contains(&output.as_str())) {
                let shown = text::shown(output);
                violations.add(
                    format!("secret_outputs.{index}"),
                    Fault::Unknown,
                    format!("`{shown}` is not a property of the output schema"),
                );
            }
        }
        violations
    }

    fn snapshot(&self) -> Json {
        let Self { display_name, description, input_schema, output_schema, secret_outputs } = self;
        json!({
            "displayName": display_name, "description": description,
            "inputSchemaJson": input_schema.text(), "outputSchemaJson": output_schema.text(),
            "secretOutputs": secret_outputs,
        })
    }
}

/// The properties that a schema lists; `None` when it lists none and so says nothing.
pub(crate) fn properties(schema: &Json) -> Option<Vec<&str>> {
    let listed = schema.get("properties")?.as_object()?;
    if listed.is_empty() { None } else { Some(listed.keys().map(String::as_str).collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_the_schemas_as_they_are_written() {
        let (input, output) = (r#"{"title":"size","properties":{}}"#, r#"{"properties":{"url":{},"id":{}}}"#);
        let fields = ResourceTypeFields {
            display_name: String::new(),
            description: String::new(),
            input_schema: Schema::parse(input).unwrap(),
            output_schema: Schema::parse(output).unwrap(),
            secret_outputs: vec![],
        };
        let snapshot = fields.snapshot();
        assert_eq!(snapshot["inputSchemaJson"], input);
        assert_eq!(snapshot["outputSchemaJson"], output);
        assert_eq!((snapshot.get("inputSchema"), snapshot.get("outputSchema")), (None, None));
    }

    #[test]
    fn secret_outputs_must_be_outputs() {
        let mut fields = ResourceTypeFields {
            display_name: String::new(),
            description: String::new(),
            input_schema: Schema::default(),
            output_schema: json!({"type": "object", "properties": {"url": {"type": "string"}}}).into(),
            secret_outputs: vec!["url".to_owned(), "password".to_owned()],
        };
        let paths: Vec<String> = fields.check("acme", "db").into_iter().map(|v| v.path).collect();
        assert_eq!(paths, ["secret_outputs.1"]);
        fields.output_schema = Schema::default();
        assert!(fields.check("acme", "db").is_empty());
        fields.input_schema = json!({"type": "nonsense"}).into();
        let violations = fields.check("acme", "db").into_vec();
        assert!(violations[0].path.starts_with("input_schema_json"), "{violations:?}");
    }
}
