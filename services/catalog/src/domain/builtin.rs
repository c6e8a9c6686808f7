//! The kinds that every organization has, after Backstage's software catalog (apiVersion `backstage.io/v1alpha1`).
//! An owner is part of every entity's envelope here, so `spec.owner` is allowed but not required. `Group` and `User` are no
//! kinds here: what documents say of them goes to the groups and users of the organization.

use super::kind::{KindFields, OWNED_BY, OWNER_OF, RelationRule};
use super::reference::GROUP;
use crate::json::{Json, JsonMap, json};

/// The kinds with their ids.
pub(crate) fn kinds() -> Vec<(&'static str, KindFields)> {
    vec![
        ("component", component()),
        ("api", api()),
        ("resource", resource()),
        ("system", system()),
        ("domain", domain()),
        ("location", location()),
        ("environment", environment()),
    ]
}

fn rule(field: &str, relation: &str, inverse: &str, default_kind: &str) -> RelationRule {
    RelationRule::new(field, relation, inverse, default_kind)
}

fn owner() -> RelationRule {
    rule("owner", OWNED_BY, OWNER_OF, GROUP)
}

fn part_of(field: &str, kind: &str) -> RelationRule {
    rule(field, "partOf", "hasPart", kind)
}

fn kind(
    display_name: &str,
    description: &str,
    required: &[&str],
    properties: &[(&str, Json)],
    relation_rules: Vec<RelationRule>,
) -> KindFields {
    let properties: JsonMap<String, Json> =
        properties.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let mut spec_schema = json!({ "type": "object", "properties": properties });
    if !required.is_empty()
        && let Some(schema) = spec_schema.as_object_mut()
    {
        schema.insert("required".to_owned(), json!(required));
    }
    KindFields {
        display_name: display_name.to_owned(),
        description: description.to_owned(),
        spec_schema: spec_schema.into(),
        relation_rules,
        built_in: true,
    }
}

fn text() -> Json {
    json!({ "type": "string", "minLength": 1 })
}

fn texts() -> Json {
    json!({ "type": "array", "items": { "type": "string", "minLength": 1 } })
}

fn component() -> KindFields {
    kind(
        "Component",
        "A piece of software: a service, a website, a library",
        &["type", "lifecycle"],
        &[
            ("type", text()),
            ("lifecycle", text()),
            ("owner", text()),
            ("system", text()),
            ("subcomponentOf", text()),
            ("providesApis", texts()),
            ("consumesApis", texts()),
            ("dependsOn", texts()),
            ("dependencyOf", texts()),
        ],
        vec![
            owner(),
            part_of("system", "system"),
            part_of("subcomponentOf", "component"),
            rule("providesApis", "providesApi", "apiProvidedBy", "api"),
            rule("consumesApis", "consumesApi", "apiConsumedBy", "api"),
            rule("dependsOn", "dependsOn", "dependencyOf", "component"),
            rule("dependencyOf", "dependencyOf", "dependsOn", "component"),
        ],
    )
}

fn api() -> KindFields {
    kind(
        "API",
        "A boundary between components",
        &["type", "lifecycle", "definition"],
        &[
            ("type", text()),
            ("lifecycle", text()),
            ("owner", text()),
            ("system", text()),
            // An object is a placeholder such as `$text: ./openapi.yaml`.
            ("definition", json!({ "type": ["string", "object"] })),
        ],
        vec![owner(), part_of("system", "system")],
    )
}

fn resource() -> KindFields {
    kind(
        "Resource",
        "Infrastructure that components need at run time",
        &["type"],
        &[
            ("type", text()),
            ("owner", text()),
            ("system", text()),
            ("dependsOn", texts()),
            ("dependencyOf", texts()),
        ],
        vec![
            owner(),
            part_of("system", "system"),
            rule("dependsOn", "dependsOn", "dependencyOf", "resource"),
            rule("dependencyOf", "dependencyOf", "dependsOn", "component"),
        ],
    )
}

fn system() -> KindFields {
    kind(
        "System",
        "Components and resources that do one thing together",
        &[],
        &[("owner", text()), ("domain", text()), ("type", text())],
        vec![owner(), part_of("domain", "domain")],
    )
}

fn domain() -> KindFields {
    kind(
        "Domain",
        "Systems that share a purpose",
        &[],
        &[("owner", text()), ("subdomainOf", text()), ("type", text())],
        vec![owner(), part_of("subdomainOf", "domain")],
    )
}

fn profile() -> Json {
    json!({
        "type": "object",
        "properties": { "displayName": text(), "email": text(), "picture": text() },
    })
}

/// What `spec` of a document about a group must be.
pub(crate) fn group_spec() -> Json {
    json!({
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": text(), "profile": profile(), "parent": text(), "children": texts(), "members": texts(),
        },
    })
}

/// What `spec` of a document about a user must be.
pub(crate) fn user_spec() -> Json {
    json!({ "type": "object", "properties": { "profile": profile(), "memberOf": texts() } })
}

fn location() -> KindFields {
    kind(
        "Location",
        "A place to read more documents from",
        &[],
        &[
            ("type", text()),
            ("target", text()),
            ("targets", texts()),
            ("presence", json!({ "enum": ["required", "optional"] })),
        ],
        vec![],
    )
}

fn environment() -> KindFields {
    kind(
        "Environment",
        "A place where components run",
        &[],
        &[("class", text()), ("owner", text()), ("system", text()), ("dependsOn", texts())],
        vec![
            owner(),
            part_of("system", "system"),
            rule("dependsOn", "dependsOn", "dependencyOf", "resource"),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Fields;

    #[test]
    fn every_built_in_kind_is_a_valid_kind() {
        let kinds = kinds();
        assert_eq!(kinds.len(), 7);
        for (id, kind) in &kinds {
            assert!(pavior_core::validate_id(id).is_ok());
            assert!(kind.check("acme", id).is_empty(), "{id}");
            for rule in &kind.relation_rules {
                let known =
                    rule.default_kind == GROUP || kinds.iter().any(|(id, _)| *id == rule.default_kind);
                assert!(known, "{rule:?}");
            }
        }
    }
}
