//! Expressions in JSON values.

use std::collections::BTreeSet;

use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};

use crate::convert::{from_json, to_json};
use crate::limits::{EXPRESSION_FUEL, MAX_EXPRESSIONS, MAX_TEXT_BYTES, MAX_VALUE_DEPTH};
use crate::scan::{Scanned, Segment, scan, split};
use crate::{ExprError, Reference, contains_marker, is_marker, is_unknown, unknown};

/// Renders every string of `value` with the names in `scope` (an object). Keys are left as they are.
///
/// # Errors
/// The first expression that does not parse, uses an undefined name, runs out of fuel, or computes with a value that
/// is unknown or a secret reference; with the dotted path of its string.
pub fn evaluate(value: &Value, scope: &Value) -> Result<Value, ExprError> {
    let mut walk = Walk::new(scope, Mode::Execute, &|_| false);
    walk.value(value, "", 0)
}

/// Renders one text as a string.
///
/// # Errors
/// As [`evaluate`]; also when the result is a list or an object.
pub fn evaluate_text(text: &str, scope: &Value) -> Result<String, ExprError> {
    match evaluate(&Value::String(text.to_owned()), scope)? {
        Value::String(text) => Ok(text),
        Value::Null => Ok(String::new()),
        other @ (Value::Bool(_) | Value::Number(_)) => Ok(other.to_string()),
        Value::Array(_) | Value::Object(_) => Err(ExprError::new("the result is not a text")),
    }
}

/// As [`evaluate`], for planning: a string whose references are not known yet becomes `{"$unknown": "<text>"}`.
/// A reference is unknown when `is_not_known(dotted name)` says so or when `scope` holds a marker on its path.
/// A secret reference passes through an expression that is just its path; mixed into text it is unknown.
///
/// # Errors
/// As [`evaluate`], except for unknown values.
pub fn evaluate_known(
    value: &Value,
    scope: &Value,
    is_not_known: &dyn Fn(&Reference) -> bool,
) -> Result<Value, ExprError> {
    let mut walk = Walk::new(scope, Mode::Plan, is_not_known);
    walk.value(value, "", 0)
}

/// As [`evaluate`], and says which strings (dotted paths) used a reference for which `is_secret_name` is true, so
/// that the caller can keep what was rendered out of logs and records.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_tracking(
    value: &Value,
    scope: &Value,
    is_secret_name: &dyn Fn(&Reference) -> bool,
) -> Result<(Value, Vec<String>), ExprError> {
    let mut walk = Walk::new(scope, Mode::Track, is_secret_name);
    let rendered = walk.value(value, "", 0)?;
    Ok((rendered, walk.tainted))
}

/// The dotted names that the expressions of `value` use, sorted, each once.
///
/// # Errors
/// The first expression that does not parse.
pub fn references(value: &Value) -> Result<Vec<Reference>, ExprError> {
    let mut names = BTreeSet::new();
    visit(value, "", 0, &mut 0, &mut |scanned| names.extend(scanned.references.iter().cloned()))?;
    Ok(names.into_iter().collect())
}

/// Parses every expression of `value`; returns all errors, not just the first.
///
/// # Errors
/// Every expression that does not parse.
pub fn check(value: &Value) -> Result<(), Vec<ExprError>> {
    let mut errors = Vec::new();
    check_into(value, "", 0, &mut errors);
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn check_into(value: &Value, path: &str, depth: usize, errors: &mut Vec<ExprError>) {
    match value {
        Value::Object(map) if depth < MAX_VALUE_DEPTH => {
            map.iter().for_each(|(key, item)| check_into(item, &join(path, key), depth + 1, errors));
        }
        Value::Array(items) if depth < MAX_VALUE_DEPTH => {
            let indexed = items.iter().enumerate();
            indexed.for_each(|(index, item)| {
                check_into(item, &join(path, &index.to_string()), depth + 1, errors)
            });
        }
        other => errors.extend(visit(other, path, depth, &mut 0, &mut |_| {}).err()),
    }
}

pub(crate) fn environment<'a>(fuel: u64) -> Environment<'a> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(fuel));
    environment.set_recursion_limit(64);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    // It prints the whole scope, which may hold secrets.
    environment.remove_global("debug");
    environment
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn too_deep() -> ExprError {
    ExprError::new(format!("the value is nested deeper than {MAX_VALUE_DEPTH}"))
}

/// Scans and parses every expression, in order.
fn visit(
    value: &Value,
    path: &str,
    depth: usize,
    count: &mut usize,
    seen: &mut dyn FnMut(&Scanned),
) -> Result<(), ExprError> {
    if depth > MAX_VALUE_DEPTH {
        return Err(too_deep().at(path));
    }
    match value {
        Value::String(text) => {
            for segment in segments(text, count).map_err(|error| error.at(path))? {
                if let Segment::Expression(expression) = segment {
                    let scanned = parse(expression).map_err(|error| error.at(path))?;
                    seen(&scanned);
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter().enumerate().try_for_each(|(index, item)| {
            visit(item, &join(path, &index.to_string()), depth + 1, count, seen)
        }),
        Value::Object(map) => {
            map.iter().try_for_each(|(key, item)| visit(item, &join(path, key), depth + 1, count, seen))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn segments<'a>(text: &'a str, count: &mut usize) -> Result<Vec<Segment<'a>>, ExprError> {
    if !text.contains("${{") {
        return Ok(vec![Segment::Text(text)]);
    }
    if text.len() > MAX_TEXT_BYTES {
        return Err(ExprError::new(format!("a text with expressions is longer than {MAX_TEXT_BYTES} bytes")));
    }
    let segments = split(text)?;
    *count += segments.iter().filter(|segment| matches!(segment, Segment::Expression(_))).count();
    if *count > MAX_EXPRESSIONS {
        return Err(ExprError::new(format!("more than {MAX_EXPRESSIONS} expressions")));
    }
    Ok(segments)
}

fn parse(expression: &str) -> Result<Scanned, ExprError> {
    if expression.trim().is_empty() {
        return Err(ExprError::new("an expression is empty"));
    }
    let scanned = scan(expression)?;
    let environment = Environment::empty();
    environment.compile_expression(&scanned.code).map_err(|error| ExprError::engine(expression, &error))?;
    Ok(scanned)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Execute,
    Track,
    Plan,
}

struct Walk<'a> {
    scope: &'a Value,
    engine_scope: minijinja::Value,
    environment: Environment<'static>,
    mode: Mode,
    special: &'a dyn Fn(&Reference) -> bool,
    tainted: Vec<String>,
    count: usize,
}

/// What a reference reads from the scope, as far as markers are concerned. Neither says anything about the other: a
/// secret that is about to change is both.
#[derive(Clone, Copy, Default)]
struct Read {
    /// Not known while planning.
    unknown: bool,
    /// A marker that passes as it is; nothing may be computed from it.
    held: bool,
}

impl std::ops::BitOrAssign for Read {
    fn bitor_assign(&mut self, other: Self) {
        self.unknown |= other.unknown;
        self.held |= other.held;
    }
}

enum Rendered {
    Value(Value),
    /// Not known while planning.
    Unknown,
}

impl<'a> Walk<'a> {
    fn new(scope: &'a Value, mode: Mode, special: &'a dyn Fn(&Reference) -> bool) -> Self {
        Self {
            scope,
            engine_scope: from_json(scope),
            environment: environment(EXPRESSION_FUEL),
            mode,
            special,
            tainted: Vec::new(),
            count: 0,
        }
    }

    fn value(&mut self, value: &Value, path: &str, depth: usize) -> Result<Value, ExprError> {
        if depth > MAX_VALUE_DEPTH {
            return Err(too_deep().at(path));
        }
        match value {
            // A marker is data already; its text is not an expression any more.
            _ if is_marker(value) => Ok(value.clone()),
            Value::String(text) => self.text(text, path).map_err(|error| error.at(path)),
            Value::Array(items) => {
                let mut out = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    out.push(self.value(item, &join(path, &index.to_string()), depth + 1)?);
                }
                Ok(Value::Array(out))
            }
            Value::Object(map) => {
                let mut out = Map::new();
                for (key, item) in map {
                    out.insert(key.clone(), self.value(item, &join(path, key), depth + 1)?);
                }
                Ok(Value::Object(out))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(value.clone()),
        }
    }

    fn text(&mut self, text: &str, path: &str) -> Result<Value, ExprError> {
        let segments = segments(text, &mut self.count)?;
        if let [Segment::Expression(expression)] = segments.as_slice() {
            return match self.expression(expression, true, path)? {
                Rendered::Value(value) => Ok(value),
                Rendered::Unknown => Ok(unknown(text)),
            };
        }
        let mut out = String::with_capacity(text.len());
        let mut known = true;
        for segment in segments {
            match segment {
                Segment::Text(text) => out.push_str(text),
                Segment::Expression(expression) => match self.expression(expression, false, path)? {
                    Rendered::Value(value) => push_text(&mut out, &value),
                    Rendered::Unknown => known = false,
                },
            }
            if out.len() > 16 * MAX_TEXT_BYTES {
                return Err(ExprError::new("the rendered text is too long"));
            }
        }
        Ok(if known { Value::String(out) } else { unknown(text) })
    }

    fn expression(&mut self, expression: &str, alone: bool, path: &str) -> Result<Rendered, ExprError> {
        let scanned = parse(expression)?;
        let mut read = Read::default();
        for reference in &scanned.references {
            let special = (self.special)(reference);
            if special && self.mode == Mode::Track {
                self.taint(path);
            }
            read |= self.read(reference);
            read.unknown |= special && self.mode == Mode::Plan;
        }
        let passes = alone && scanned.is_path;
        if read.unknown || (read.held && !passes) {
            if self.mode == Mode::Plan {
                return Ok(Rendered::Unknown);
            }
            let kind =
                if read.unknown { "a value that is not known yet" } else { "a secret that is not resolved" };
            return Err(ExprError::new(format!("`{}` uses {kind}", expression.trim())));
        }
        let fail = |error| ExprError::engine(expression, &error);
        let compiled = self.environment.compile_expression_owned(scanned.code.clone()).map_err(fail)?;
        let result = compiled.eval(self.engine_scope.clone()).map_err(fail)?;
        to_json(&result, 0)
            .map(Rendered::Value)
            .map_err(|error| ExprError::new(format!("`{}` {}", expression.trim(), error.message)))
    }

    fn taint(&mut self, path: &str) {
        if self.tainted.last().is_none_or(|last| last != path) {
            self.tainted.push(path.to_owned());
        }
    }

    fn read(&self, reference: &Reference) -> Read {
        let mut at = self.scope;
        for segment in reference.segments() {
            if is_marker(at) {
                break;
            }
            let next = match at {
                Value::Object(map) => map.get(segment),
                Value::Array(items) => segment.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => None,
            };
            match next {
                Some(next) => at = next,
                None => return Read::default(),
            }
        }
        // A whole object with a marker inside passes as it is, too.
        Read { unknown: is_unknown(at), held: contains_marker(at) }
    }
}

fn push_text(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => out.push_str(text),
        Value::Null => {}
        other => out.push_str(&other.to_string()),
    }
}
