//! YAML as JSON values, with budgets: aliases, nesting, size and documents are bounded before they cost anything.

use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;

use crate::limits::shorten;

/// Longest YAML text, in bytes.
pub const MAX_YAML_BYTES: usize = 4 * 1024 * 1024;

/// Where and why a YAML text is refused. `line` and `column` count from 1; 0 when there is no place to name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct YamlError {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// What is wrong, lower case.
    pub message: String,
}

fn options() -> serde_saphyr::Options {
    let mut budget = serde_saphyr::Budget::default();
    budget.max_reader_input_bytes = Some(MAX_YAML_BYTES);
    budget.max_events = 400_000;
    budget.max_nodes = 200_000;
    budget.max_depth = 48;
    budget.max_aliases = 1_000;
    budget.max_anchors = 1_000;
    budget.max_documents = 5_000;
    budget.max_total_scalar_bytes = MAX_YAML_BYTES;
    budget.max_merge_keys = 1_000;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = 50_000;
    options.alias_limits.max_replay_stack_depth = 16;
    options.duplicate_keys = DuplicateKeyPolicy::Error;
    // YAML 1.2: `no` is a text, as in every file that names Norway.
    options.strict_booleans = true;
    options.with_snippet = false;
    options
}

fn refuse(error: &serde_saphyr::Error) -> YamlError {
    let location = error.location();
    let text = error.without_snippet().to_string();
    let message = text.lines().next().unwrap_or_default();
    // The place is told apart; the parser's own mention of it is cut off.
    let message = message.split(" at line ").next().unwrap_or(message);
    YamlError {
        line: location.as_ref().map_or(0, serde_saphyr::Location::line),
        column: location.as_ref().map_or(0, serde_saphyr::Location::column),
        message: shorten(message),
    }
}

fn size(text: &str) -> Result<(), YamlError> {
    if text.len() > MAX_YAML_BYTES {
        let message = format!("the text is longer than {MAX_YAML_BYTES} bytes");
        return Err(YamlError { line: 0, column: 0, message });
    }
    Ok(())
}

/// One document. An empty text is null.
///
/// # Errors
/// Broken YAML, a duplicate key, more than one document, or a budget that is exceeded.
pub fn parse(text: &str) -> Result<Value, YamlError> {
    size(text)?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| refuse(&error))
}

/// All documents of a stream; empty ones are left out.
///
/// # Errors
/// As [`parse`].
pub fn parse_documents(text: &str) -> Result<Vec<Value>, YamlError> {
    size(text)?;
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| refuse(&error))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}
