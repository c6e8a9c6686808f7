//! YAML and JSON Schema: places in errors, and budgets.

// A failure to set up a test is a failure of the test.
#![allow(clippy::panic, clippy::unwrap_used)]

use pavior_expr::{schema, secret, unknown, yaml};
use serde_json::json;

#[test]
fn yaml_is_json_with_places() {
    assert_eq!(
        yaml::parse("a: 1\nb: [x, no, 1.5]\nc:\n  d: null\n").unwrap(),
        json!({"a": 1, "b": ["x", "no", 1.5], "c": {"d": null}})
    );
    assert_eq!(yaml::parse("").unwrap(), json!(null));
    assert_eq!(yaml::parse_documents("a: 1\n---\nb: 2\n---\n").unwrap(), [json!({"a": 1}), json!({"b": 2})]);
    let error = yaml::parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
    assert!(error.line >= 2 && error.column >= 1, "{error:?}");
    let error = yaml::parse("a: 1\na: 2\n").unwrap_err();
    assert_eq!(error.line, 2, "{error:?}");
    assert_eq!(
        yaml::parse("a: \"${{ x }}\"\nb: ${{ y }}\n").unwrap(),
        json!({"a": "${{ x }}", "b": "${{ y }}"})
    );
}

#[test]
fn yaml_bombs_are_refused() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let previous = format!("*a{}, ", level - 1).repeat(9);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", previous.trim_end_matches(", ")));
    }
    assert!(yaml::parse(&laughs).is_err());
    assert!(yaml::parse(&"[".repeat(10_000)).is_err());
    assert!(yaml::parse(&"- ".repeat(10_000)).is_err());
    assert!(yaml::parse(&"x".repeat(yaml::MAX_YAML_BYTES + 1)).is_err());
    let block: String = (0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(yaml::parse(&block).is_err());
    assert!(yaml::parse("a: &a [*a]\n").is_err());
}

#[test]
fn violations_point_at_fields() {
    let schema = json!({"type": "object", "required": ["language"], "additionalProperties": false, "properties": {
        "language": {"enum": ["rust", "go"]}, "n": {"type": "integer", "minimum": 1},
        "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string"}}}}}});
    assert!(schema::validate(&schema, &json!({"language": "rust", "n": 1})).is_empty());
    let found = schema::validate(&schema, &json!({"n": 0, "list": [{"x": 1}], "extra": 1}));
    let mut paths: Vec<&str> = found.iter().map(|v| v.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["extra", "language", "list.0.x", "n"]);
}

#[test]
fn defaults_are_filled_in() {
    let schema = json!({"$defs": {"size": {"type": "string", "default": "small"}}, "type": "object", "properties": {
        "size": {"$ref": "#/$defs/size"}, "deep": {"type": "object", "default": {}, "properties": {"n": {"default": 3}}},
        "list": {"items": {"properties": {"k": {"default": 1}}}}}});
    let filled = schema::with_defaults(&schema, &json!({"list": [{}, {"k": 2}]}));
    assert_eq!(filled, json!({"list": [{"k": 1}, {"k": 2}], "size": "small", "deep": {"n": 3}}));
}

#[test]
fn markers_are_forgiven_while_planning() {
    let schema = json!({"type": "object", "required": ["url", "n"], "properties": {"url": {"type": "string"},
        "n": {"type": "integer"}, "c": {"anyOf": [{"properties": {"d": {"type": "string"}}}]}}});
    let planned = json!({"url": unknown("x"), "n": "wrong", "c": {"d": secret("s")}});
    let found = schema::validate_planned(&schema, &planned);
    assert_eq!(found.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(), ["n"]);
    assert_eq!(schema::validate(&schema, &planned).len(), 3);
}

#[test]
fn bad_schemas_are_refused() {
    let mut doubling = json!({"$defs": {"n0": {"type": "string"}}, "$ref": "#/$defs/n40"});
    for level in 1..=40 {
        let reference = json!({"$ref": format!("#/$defs/n{}", level - 1)});
        doubling["$defs"][format!("n{level}")] = json!({"allOf": [reference, reference]});
    }
    let mut deep = json!({});
    for _ in 0..100 {
        deep = json!({"not": deep});
    }
    let bad = [
        json!({"type": "nonsense"}),
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}, "properties": {"x": {"$ref": "#/$defs/a"}}}),
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"$ref": "file:///etc/passwd"}),
        json!({"$ref": "#/$defs/none"}),
        json!({"pattern": "(?=look)"}),
        json!({"pattern": "(a{1000}){1000}"}),
        json!("text"),
        doubling,
    ];
    for schema in bad {
        let violations = schema::compile_check(&schema);
        assert!(violations.is_err(), "{schema}");
        assert!(!schema::validate(&schema, &json!("aaaa")).is_empty(), "{schema}");
    }
    assert!(schema::compile_check(&deep).is_err());
    let tree = json!({"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}});
    assert!(schema::compile_check(&tree).is_ok());
    assert!(schema::validate(&tree, &json!({"left": {"right": {"left": 1}}})).len() == 1);
    assert!(
        schema::compile_check(&json!({"type": "object", "properties": {"$id": {"type": "string"}}})).is_ok()
    );
}
