use std::collections::BTreeSet;

use super::*;
use crate::domain::{VersionFields, Violations};
use proptest::prelude::*;

pub(crate) const GOOD: &str = r#"
template: web-service
version: 1.0.0
title: Web service
parameters:
  type: object
  required: [language]
  properties:
    language: { enum: [rust, python] }
    size: { enum: [small, large], default: small }
project:
  repository:
    type: git-repository
    inputs: { skeleton: "web-service/${{ parameters.language }}", parameters: { name: "${{ project.id }}" } }
  pipeline:
    type: ci-pipeline
    inputs:
      repository: "${{ resources.repository.path }}"
      steps: [ { name: test, run: make test, timeout: 300s } ]
      artifacts: [ { name: app, path: target/app } ]
  entry:
    type: catalog-entity
    inputs: { kind: component, id: "${{ project.id }}", spec: { type: service, lifecycle: production } }
environments:
  development:
    create: with_project
    ttl: 8h
    resources:
      database: { type: sql-database, inputs: { size: "${{ parameters.size }}" } }
    workload:
      artifact: app
      inputs:
        command: ["${{ artifact.path }}"]
        variables:
          DATABASE_URL: "${{ resources.database.url }}"
          APP_ENVIRONMENT: "${{ environment.id }}"
          REPOSITORY: "${{ project.resources.repository.path }}"
  staging: { extends: development, create: on_request }
  production:
    extends: staging
    resources: { database: { inputs: { size: large } } }
extensions: { allow: [redis-cache] }
"#;

fn contract(input_schema: Json, outputs: &[&str]) -> TypeContract {
    let outputs: BTreeSet<String> = outputs.iter().map(|o| (*o).to_owned()).collect();
    TypeContract { input_schema, outputs: (!outputs.is_empty()).then_some(outputs) }
}

pub(crate) fn types() -> BTreeMap<String, TypeContract> {
    let database = json!({
        "type": "object", "additionalProperties": false,
        "properties": { "size": { "enum": ["small", "large"] } },
    });
    [
        ("git-repository", contract(json!({"type": "object", "required": ["skeleton"]}), &["path", "url"])),
        ("ci-pipeline", contract(json!({}), &[])),
        ("sql-database", contract(database, &["url"])),
        ("workload", contract(json!({"type": "object", "required": ["artifact"]}), &["url"])),
        ("redis-cache", contract(json!({}), &[])),
    ]
    .into_iter()
    .map(|(id, contract)| (id.to_owned(), contract))
    .collect()
}

fn check(text: &str) -> Result<(String, VersionFields), Violations> {
    parse(text)?.check("web-service", &types())
}

fn paths(text: &str) -> Vec<String> {
    let mut paths: Vec<String> = check(text).unwrap_err().into_iter().map(|v| v.path).collect();
    paths.sort();
    paths
}

#[test]
fn a_good_document_is_resolved() {
    let document = parse(GOOD).unwrap();
    assert_eq!(
        document.types().into_iter().collect::<Vec<_>>(),
        ["catalog-entity", "ci-pipeline", "git-repository", "redis-cache", "sql-database", "workload"]
    );
    let (version, fields) = document.check("web-service", &types()).unwrap();
    assert_eq!(version, "1.0.0");
    assert_eq!(fields.environment_classes, ["development", "staging", "production"]);
    let environments = &fields.content["environments"];
    assert_eq!(environments["development"]["ttl"], "8h");
    assert_eq!(environments["staging"]["create"], "on_request");
    assert_eq!(environments["staging"].get("ttl"), None, "how long it lives is not inherited");
    assert_eq!(environments["production"].get("create"), None);
    assert_eq!(environments["production"].get("extends"), None);
    assert_eq!(environments["production"]["resources"]["database"]["inputs"]["size"], "large");
    assert_eq!(environments["production"]["resources"]["database"]["type"], "sql-database");
    assert_eq!(environments["production"]["workload"]["artifact"], "app");
    assert_eq!(fields.parameter_schema.value()["properties"]["size"]["default"], "small");
}

#[test]
fn all_problems_are_named_at_once() {
    let text = GOOD
        .replace("1.0.0", "one")
        .replace("create: with_project", "create: sometimes")
        .replace("environment.id", "environment.colour")
        .replace("allow: [redis-cache]", "allow: [queue]");
    assert_eq!(
        paths(&text),
        [
            "document.environments.development.create",
            "document.environments.development.workload.inputs.variables.APP_ENVIRONMENT",
            "document.extensions.allow.0",
            "document.version",
        ]
    );
}

#[test]
fn an_inherited_problem_is_named_where_it_comes_from() {
    let text = GOOD.replace(
        "extends: staging\n    resources: { database: { inputs: { size: large } } }",
        "extends: staging\n    resources: { database: { inputs: { size: huge } } }",
    );
    assert_eq!(paths(&text), ["document.environments.production.resources.database.inputs.size"]);
}

/// Replacements in the good document, each with the one place that must be named.
#[test]
fn one_mistake_names_one_place() {
    let table: &[(&str, &str, &str)] = &[
        ("template: web-service", "template: other", "document.template"),
        ("template: web-service\n", "\n", "document.template"),
        ("version: 1.0.0", "version: 1.0", "document.version"),
        ("version: 1.0.0", "version: 1.0.0+build", "document.version"),
        ("title: Web service", "title: [x]", "document.title"),
        ("title: Web service", "titel: Web service", "document.titel"),
        ("  type: object\n", "  type: array\n", "document.parameters.type"),
        ("default: small", "default: huge", "document.parameters.properties.size.default"),
        ("required: [language]", "required: [tongue]", "document.parameters.required.0"),
        ("type: git-repository", "type: svn-repository", "document.project.repository.type"),
        ("type: git-repository", "kind: git-repository, type: git-repository".trim(), ""),
        ("skeleton: ", "skeletton: ", "document.project.repository.inputs.skeleton"),
        ("parameters.language }}", "parameters.lang }}", "document.project.repository.inputs.skeleton"),
        (
            "project.id }}\" } }\n  pipeline",
            "project.ident }}\" } }\n  pipeline",
            "document.project.repository.inputs.parameters.name",
        ),
        (
            "resources.repository.path }}\"\n      steps",
            "resources.repo.path }}\"\n      steps",
            "document.project.pipeline.inputs.repository",
        ),
        (
            "resources.repository.path }}\"\n      steps",
            "resources.repository.size }}\"\n      steps",
            "document.project.pipeline.inputs.repository",
        ),
        (
            "resources.repository.path }}\"\n      steps",
            "resources }}\"\n      steps",
            "document.project.pipeline.inputs.repository",
        ),
        ("run: make test", "run: \"${{ 1 + }}\"", "document.project.pipeline.inputs.steps.0.run"),
        ("run: make test", "run: \"${{ environment.id }}\"", "document.project.pipeline.inputs.steps.0.run"),
        ("run: make test", "run: \"${{ artifact.path }}\"", "document.project.pipeline.inputs.steps.0.run"),
        ("run: make test", "run: \"${{ secrets.key }}\"", "document.project.pipeline.inputs.steps.0.run"),
        (
            "run: make test",
            "run: \"${{ project.resources.repository.path }}\"",
            "document.project.pipeline.inputs.steps.0.run",
        ),
        ("run: make test", "run: \"${{ resources.pipeline.x }}\"", "document.project.pipeline"),
        ("ttl: 8h", "ttl: tomorrow", "document.environments.development.ttl"),
        ("ttl: 8h", "lifetime: 8h", "document.environments.development.lifetime"),
        ("database: { type: sql-database,", "Database: { type: sql-database,", ""),
        ("type: sql-database", "type: 7", "document.environments.development.resources.database.type"),
        (
            "type: sql-database,",
            "type: sql-database, depends_on: [x],",
            "document.environments.development.resources.database.depends_on",
        ),
        (
            "size: \"${{ parameters.size }}\"",
            "colour: red",
            "document.environments.development.resources.database.inputs.colour",
        ),
        ("artifact: app\n", "artifact: web\n", "document.environments.development.workload.artifact"),
        ("artifact: app\n", "image: app\n", "document.environments.development.workload.image"),
        (
            "artifact.path }}\"]",
            "artifact.size }}\"]",
            "document.environments.development.workload.inputs.command.0",
        ),
        (
            "resources.database.url",
            "resources.database.password",
            "document.environments.development.workload.inputs.variables.DATABASE_URL",
        ),
        (
            "project.resources.repository.path",
            "project.resources.repo.path",
            "document.environments.development.workload.inputs.variables.REPOSITORY",
        ),
        ("extends: development", "extends: testing", "document.environments.staging.extends"),
        ("allow: [redis-cache]", "allow: redis-cache", "document.extensions.allow"),
        ("allow: [redis-cache]", "allow: [7]", "document.extensions.allow.0"),
        ("extensions: { allow", "extensions: { deny: [], allow", "document.extensions.deny"),
    ];
    for (from, to, path) in table {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from}");
        let found = paths(&text);
        if !path.is_empty() {
            assert!(found.contains(&(*path).to_owned()), "{to}: {found:?}");
        } else {
            assert!(!found.is_empty(), "{to}");
        }
    }
}

#[test]
fn circles_are_refused() {
    let text = r#"
template: web-service
version: 1.0.0
environments:
  a: { extends: b }
  b: { extends: c }
  c: { extends: a }
  d:
    resources:
      one: { type: redis-cache, inputs: { x: "${{ resources.two.y }}" } }
      two: { type: redis-cache, inputs: { x: "${{ resources.three.y }}" } }
      three: { type: redis-cache, inputs: { x: "${{ resources.one.y }}" } }
      me: { type: redis-cache, inputs: { x: "${{ resources.me.y }}" } }
      workload: { type: redis-cache }
"#;
    assert_eq!(
        paths(text),
        [
            "document.environments.a.extends",
            "document.environments.b.extends",
            "document.environments.c.extends",
            "document.environments.d.resources.me",
            "document.environments.d.resources.one",
            "document.environments.d.resources.workload",
        ]
    );
}

#[test]
fn what_is_not_a_document() {
    for text in ["", "[]", "just text", "{", "a: 1\na: 2", "a: &a [*a]", "--- \na: 1\n---\nb: 2"] {
        assert_eq!(paths(text), ["document"], "{text}");
    }
    assert_eq!(paths(&format!("a: {}", "[".repeat(10_000))), ["document"]);
    assert_eq!(
        paths("template: 1\nversion: 1.0.0\nproject: []\nenvironments: 3\nparameters: x\nextensions: []"),
        [
            "document.environments",
            "document.extensions",
            "document.parameters",
            "document.project",
            "document.template",
        ]
    );
}

#[test]
fn an_artifact_needs_a_pipeline() {
    let text = r#"
template: web-service
version: 1.0.0
environments:
  dev: { workload: { inputs: { command: ["${{ artifact.path }}"] } } }
  prod: { workload: { artifact: app } }
"#;
    assert_eq!(
        paths(text),
        ["document.environments.dev.workload.inputs", "document.environments.prod.workload.artifact"]
    );
}

#[test]
fn channels_table() {
    assert!(channel_problem("stable").is_ok());
    for channel in ["latest", "", "1.0.0", "Stable"] {
        assert!(channel_problem(channel).is_err(), "{channel}");
    }
}

#[test]
fn channels_survive_being_kept() {
    let channel = Channel {
        version: "1.0.0".to_owned(),
        move_time: OffsetDateTime::UNIX_EPOCH + time::Duration::microseconds(1_764_000_000_000_001),
        mover: "organizations/acme/users/pia".to_owned(),
    };
    let channels: BTreeMap<String, Channel> = [("stable".to_owned(), channel)].into();
    assert_eq!(channels_from_json(&channels_to_json(&channels)), Some(channels));
    assert_eq!(channels_from_json(&json!({})), Some(BTreeMap::new()));
    for bad in
        [json!([]), json!({"stable": "1.0.0"}), json!({"stable": {"templateVersion": "1.0.0", "mover": ""}})]
    {
        assert_eq!(channels_from_json(&bad), None, "{bad}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_damage_makes_it_panic(at in any::<prop::sample::Index>(), with in "[ -~\n]{0,6}") {
        let mut text = GOOD.to_owned();
        let at = at.index(text.len());
        text.replace_range(at..=at, &with);
        let _ = check(&text);
    }
}
