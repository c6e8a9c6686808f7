//! JSON Schema 2020-12 for parameters, inputs and outputs: no remote references, linear-time patterns, bounded size.

use std::collections::HashMap;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use pavior_core::pointer;
use serde_json::Value;

use crate::limits::shorten;
use crate::{is_marker, markers};

/// Largest schema, as JSON text in bytes.
pub const MAX_SCHEMA_BYTES: usize = 256 * 1024;
/// Deepest nesting of a schema.
const MAX_SCHEMA_DEPTH: usize = 48;
/// Most schemas that may apply to one place of an instance behind one reference.
const MAX_IN_PLACE: u64 = 1_000;
/// Most values that defaults are looked for in.
const MAX_FILLED: usize = 20_000;
/// Most violations that are reported.
const MAX_VIOLATIONS: usize = 100;

/// One thing that is wrong with an instance or a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Dotted path of the field (`steps.0.name`); empty for the whole.
    pub path: String,
    /// The same place as a JSON Pointer (`/steps/0/name`), which says it whatever the names are made of. Empty for what is
    /// wrong with a schema.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

impl Violation {
    fn new(path: impl Into<String>, message: impl AsRef<str>) -> Self {
        Self { path: path.into(), pointer: String::new(), message: shorten(message.as_ref()) }
    }

    fn at(place: String, message: impl AsRef<str>) -> Self {
        Self { path: pointer::dotted(&place), pointer: place, message: shorten(message.as_ref()) }
    }
}

/// Whether a schema can be used: valid 2020-12, bounded, local references that exist and do not go in circles.
///
/// # Errors
/// What is wrong with the schema, with paths in the schema.
pub fn compile_check(schema: &Value) -> Result<(), Vec<Violation>> {
    compile(schema).map(|_| ())
}

/// Checks an instance. Empty when it is valid; what is wrong with the schema is reported as a violation too.
#[must_use]
pub fn validate(schema: &Value, instance: &Value) -> Vec<Violation> {
    match compile(schema) {
        Ok(validator) => collect(&validator, instance, &|_| false),
        Err(violations) => violations,
    }
}

/// As [`validate`], for planned inputs: what is wrong at or above an unknown value or a secret reference in a way
/// that the final value may set right is not reported.
#[must_use]
pub fn validate_planned(schema: &Value, instance: &Value) -> Vec<Violation> {
    match compile(schema) {
        Ok(validator) => collect(&validator, instance, &|error| forgivable(instance, error)),
        Err(violations) => violations,
    }
}

/// The instance with the defaults of the schema filled in for what is missing. Does not validate.
#[must_use]
pub fn with_defaults(schema: &Value, instance: &Value) -> Value {
    let mut filled = instance.clone();
    fill(schema, schema, &mut filled, 0, &mut 0);
    filled
}

fn compile(schema: &Value) -> Result<Validator, Vec<Violation>> {
    let bound = |message: String| vec![Violation::new("", message)];
    if !(schema.is_object() || schema.is_boolean()) {
        return Err(bound("a schema must be an object".to_owned()));
    }
    if depth(schema) > MAX_SCHEMA_DEPTH {
        return Err(bound(format!("the schema is nested deeper than {MAX_SCHEMA_DEPTH}")));
    }
    if schema.to_string().len() > MAX_SCHEMA_BYTES {
        return Err(bound(format!("the schema is longer than {MAX_SCHEMA_BYTES} bytes")));
    }
    references(schema)?;
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .with_pattern_options(PatternOptions::regex().size_limit(1024 * 1024))
        .build(schema)
        .map_err(|error| {
            vec![Violation::new(pointer::dotted(error.instance_path().as_str()), error.to_string())]
        })
}

fn depth(value: &Value) -> usize {
    // By hand rather than by recursion: the depth is what is not trusted.
    let mut deepest = 0;
    let mut stack = vec![(value, 1)];
    while let Some((value, level)) = stack.pop() {
        deepest = deepest.max(level);
        if deepest > MAX_SCHEMA_DEPTH {
            break;
        }
        match value {
            Value::Array(items) => stack.extend(items.iter().map(|item| (item, level + 1))),
            Value::Object(map) => stack.extend(map.values().map(|item| (item, level + 1))),
            _ => {}
        }
    }
    deepest
}

/// Every `$ref` is a local pointer, exists, and does not lead back to itself without going into the instance.
fn references(schema: &Value) -> Result<(), Vec<Violation>> {
    let mut violations = Vec::new();
    let mut stack = vec![(String::new(), schema)];
    while let Some((path, value)) = stack.pop() {
        match value {
            Value::Array(items) => {
                stack.extend(items.iter().enumerate().map(|(index, item)| (format!("{path}.{index}"), item)));
            }
            Value::Object(map) => {
                for keyword in ["$dynamicRef", "$recursiveRef", "$id", "$anchor", "$dynamicAnchor"] {
                    if map.get(keyword).is_some_and(Value::is_string) && !path.ends_with(".properties") {
                        let allowed = keyword == "$id" && path.is_empty();
                        if !allowed {
                            let message =
                                format!("`{keyword}` is not supported; use `$ref` with `#/$defs/…`");
                            violations.push(Violation::new(path.trim_start_matches('.'), message));
                        }
                    }
                }
                if let Some(reference) = map.get("$ref").and_then(Value::as_str)
                    && let Some(problem) = reference_problem(schema, reference)
                {
                    violations.push(Violation::new(format!("{path}.$ref").trim_start_matches('.'), problem));
                }
                stack.extend(map.iter().map(|(key, item)| (format!("{path}.{key}"), item)));
            }
            _ => {}
        }
    }
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

fn reference_problem(root: &Value, reference: &str) -> Option<String> {
    let Some(pointer) = reference.strip_prefix('#') else {
        return Some(format!("`{reference}` is not a local reference"));
    };
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Some(format!("`{reference}` is not a JSON pointer"));
    }
    let Some(target) = root.pointer(pointer) else {
        return Some(format!("`{reference}` does not exist"));
    };
    match (InPlace { root, costs: HashMap::new() }).cost(target, 0) {
        None => Some(format!("`{reference}` refers to itself")),
        Some(cost) if cost > MAX_IN_PLACE => Some(format!("`{reference}` expands to too many schemas")),
        Some(_) => None,
    }
}

/// Counts the schemas that apply to one place of an instance, references and combinators followed. Each schema is
/// visited once, so that the count itself does not explode where validation would.
struct InPlace<'a> {
    root: &'a Value,
    /// By address; `None` while a schema is being counted, which is how a circle shows.
    costs: HashMap<usize, Option<u64>>,
}

impl InPlace<'_> {
    fn cost(&mut self, schema: &Value, level: usize) -> Option<u64> {
        let Some(map) = schema.as_object() else { return Some(1) };
        let address = std::ptr::from_ref(schema).addr();
        if let Some(known) = self.costs.get(&address) {
            return *known;
        }
        if level > 4 * MAX_SCHEMA_DEPTH {
            return Some(MAX_IN_PLACE + 1);
        }
        self.costs.insert(address, None);
        let pointer = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
        let target = pointer.and_then(|pointer| self.root.pointer(pointer));
        let lists =
            ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|key| map.get(key)?.as_array()).flatten();
        let singles = ["not", "if", "then", "else"].into_iter().filter_map(|key| map.get(key));
        let dependent =
            map.get("dependentSchemas").and_then(Value::as_object).into_iter().flat_map(|m| m.values());
        let next: Vec<&Value> = target.into_iter().chain(lists).chain(singles).chain(dependent).collect();
        let mut sum = 1_u64;
        for schema in next {
            sum = sum.saturating_add(self.cost(schema, level + 1)?);
        }
        self.costs.insert(address, Some(sum));
        Some(sum)
    }
}

fn collect(
    validator: &Validator,
    instance: &Value,
    forgive: &dyn Fn(&ValidationError<'_>) -> bool,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    for error in validator.iter_errors(instance).take(MAX_VIOLATIONS) {
        if !forgive(&error) {
            describe(&error, &mut violations);
        }
    }
    violations
}

/// A violation points at the field that somebody has to change, also when it is missing or too much.
fn describe(error: &ValidationError<'_>, out: &mut Vec<Violation>) {
    let place = error.instance_path().as_str();
    let below = |name: &str| pointer::child(place, name);
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            out.push(Violation::at(below(name), "is required"));
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            out.extend(unexpected.iter().map(|name| Violation::at(below(name), "is not a known field")));
        }
        _ => out.push(Violation::at(place.to_owned(), error.to_string())),
    }
}

fn forgivable(instance: &Value, error: &ValidationError<'_>) -> bool {
    // At a marker, or below one.
    let mut at = instance;
    for name in pointer::tokens(error.instance_path().as_str()) {
        if is_marker(at) {
            return true;
        }
        let next = match at {
            Value::Object(map) => map.get(name.as_ref()),
            Value::Array(items) => name.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return false,
        }
    }
    // Above a marker only keywords that look through to it may change their answer.
    is_marker(at)
        || (markers::contains_marker(at)
            && matches!(
                error.kind(),
                ValidationErrorKind::AnyOf { .. }
                    | ValidationErrorKind::OneOfNotValid { .. }
                    | ValidationErrorKind::OneOfMultipleValid { .. }
                    | ValidationErrorKind::Not { .. }
                    | ValidationErrorKind::Contains
                    | ValidationErrorKind::Enum { .. }
                    | ValidationErrorKind::Constant { .. }
                    | ValidationErrorKind::UniqueItems
            ))
}

fn fill(root: &Value, schema: &Value, instance: &mut Value, level: usize, count: &mut usize) {
    let Some(keywords) = schema.as_object() else { return };
    *count += 1;
    if level > MAX_SCHEMA_DEPTH || *count > MAX_FILLED || is_marker(instance) {
        return;
    }
    let target = keywords.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
    if let Some(target) = target.and_then(|pointer| root.pointer(pointer)) {
        fill(root, target, instance, level + 1, count);
    }
    for part in keywords.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        fill(root, part, instance, level + 1, count);
    }
    if let (Some(properties), Some(map)) =
        (keywords.get("properties").and_then(Value::as_object), instance.as_object_mut())
    {
        for (name, property) in properties {
            if let (false, Some(default)) = (map.contains_key(name), default_of(root, property)) {
                map.insert(name.clone(), default);
            }
            if let Some(value) = map.get_mut(name) {
                fill(root, property, value, level + 1, count);
            }
        }
    }
    if let (Some(items), Some(list)) = (keywords.get("items"), instance.as_array_mut()) {
        list.iter_mut().for_each(|item| fill(root, items, item, level + 1, count));
    }
}

/// The default of a property, also behind a reference.
fn default_of(root: &Value, schema: &Value) -> Option<Value> {
    let mut at = schema;
    for _ in 0..8 {
        if let Some(default) = at.get("default") {
            return Some(default.clone());
        }
        at = root.pointer(at.get("$ref")?.as_str()?.strip_prefix('#')?)?;
    }
    None
}
