//! Kinds of entities: the schema of `spec`, and which of its fields point at other entities.

use super::{Fields, Schema, Violations, text};
use crate::json::{Json, json};
use pavior_core::Fault;

/// The relation from a thing to its owner.
pub(crate) const OWNED_BY: &str = "ownedBy";
/// The same, seen from the owner.
pub(crate) const OWNER_OF: &str = "ownerOf";

/// Says that a field of `spec` points at other entities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelationRule {
    pub(crate) field: String,
    pub(crate) relation: String,
    pub(crate) inverse: String,
    /// Empty when a reference must name its kind.
    pub(crate) default_kind: String,
}

impl RelationRule {
    pub(crate) fn new(field: &str, relation: &str, inverse: &str, default_kind: &str) -> Self {
        Self {
            field: field.to_owned(),
            relation: relation.to_owned(),
            inverse: inverse.to_owned(),
            default_kind: default_kind.to_owned(),
        }
    }
}

/// A kind of entity.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KindFields {
    pub(crate) display_name: String,
    pub(crate) description: String,
    pub(crate) spec_schema: Schema,
    pub(crate) relation_rules: Vec<RelationRule>,
    pub(crate) built_in: bool,
}

impl Fields for KindFields {
    const SINGULAR: &'static str = "kind";
    const TYPE: &'static str = "catalog.pavior.dev/Kind";

    fn name(&self, organization: &str, id: &str) -> String {
        format!("organizations/{organization}/kinds/{id}")
    }

    fn check(&self, _organization: &str, _id: &str) -> Violations {
        let mut violations = Violations::new();
        self.spec_schema.check(&mut violations, "spec_schema_json");
        for (index, rule) in self.relation_rules.iter().enumerate() {
            if self.relation_rules.iter().take(index).any(|other| other.field == rule.field) {
                violations.add(
                    format!("relation_rules.{index}.field"),
                    Fault::Duplicate,
                    format!("`{}` stands twice", text::shown(&rule.field)),
                );
            }
        }
        violations
    }

    fn snapshot(&self) -> Json {
        let Self { display_name, description, spec_schema, relation_rules, built_in } = self;
        json!({
            "displayName": display_name, "description": description, "specSchemaJson": spec_schema.text(),
            "relationRules": rules_to_json(relation_rules), "builtIn": built_in,
        })
    }
}

/// The rules as they are kept.
pub(crate) fn rules_to_json(rules: &[RelationRule]) -> Json {
    let rules = rules.iter().map(|rule| {
        let RelationRule { field, relation, inverse, default_kind } = rule;
        json!({ "field": field, "type": relation, "inverseType": inverse, "defaultKindId": default_kind })
    });
    Json::Array(rules.collect())
}

/// The rules as they were kept.
pub(crate) fn rules_from_json(json: &Json) -> Option<Vec<RelationRule>> {
    let text = |rule: &Json, key: &str| rule.get(key).and_then(Json::as_str).map(str::to_owned);
    json.as_array()?
        .iter()
        .map(|rule| {
            Some(RelationRule {
                field: text(rule, "field")?,
                relation: text(rule, "type")?,
                inverse: text(rule, "inverseType")?,
                default_kind: text(rule, "defaultKindId")?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_being_kept() {
        let rules = vec![RelationRule::new("dependsOn", "dependsOn", "dependencyOf", "component")];
        assert_eq!(rules_from_json(&rules_to_json(&rules)), Some(rules));
        assert_eq!(rules_from_json(&json!([{"field": "x"}])), None);
    }

    #[test]
    fn a_record_tells_the_schema_as_it_is_written() {
        let schema = r#"{"type":"object","properties":{"size":{},"area":{}}}"#;
        let kind = KindFields {
            display_name: String::new(),
            description: String::new(),
            spec_schema: Schema::parse(schema).unwrap(),
            relation_rules: vec![],
            built_in: false,
        };
        let snapshot = kind.snapshot();
        assert_eq!((&snapshot["specSchemaJson"], snapshot.get("specSchema")), (&json!(schema), None));
    }

    #[test]
    fn bad_kinds_are_refused_with_paths() {
        let kind = KindFields {
            display_name: String::new(),
            description: String::new(),
            spec_schema: json!({"$ref": "https://example.com/schema"}).into(),
            relation_rules: vec![
                RelationRule::new("uses", "uses", "usedBy", ""),
                RelationRule::new("uses", "uses", "usedBy", ""),
            ],
            built_in: false,
        };
        let paths: Vec<String> = kind.check("acme", "k").into_iter().map(|v| v.path).collect();
        assert_eq!(paths, ["spec_schema_json.$ref", "relation_rules.1.field"]);
    }
}
