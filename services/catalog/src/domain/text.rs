//! Limits that the protos cannot state, and those of documents.

use pavior_core::Fault;
use std::collections::{BTreeMap, BTreeSet};

use pavior_core::name::{RESERVED_KEY, is_reserved_key};
use pavior_core::nearest::distance;
use pavior_core::text::is_hidden;
use pavior_core::value::{INEXACT, MAX_DEPTH, deeper_than, inexact_paths};

use super::Violations;
use crate::json::{Json, contains_nul};

/// Longest name to show, in characters.
pub(crate) const MAX_DISPLAY_NAME: usize = 200;
/// Longest description, in bytes.
pub(crate) const MAX_DESCRIPTION: usize = 16 * 1024;
/// All annotations together, in bytes.
pub(crate) const MAX_ANNOTATIONS: usize = 64 * 1024;
/// So many numbers that are too large are named at once.
const MAX_NAMED: usize = 20;
/// Largest spec or schema, as JSON text in bytes.
pub(crate) const MAX_JSON: usize = 256 * 1024;

/// One line of at most `max` characters.
pub(crate) fn line(violations: &mut Violations, path: &str, text: &str, max: usize) {
    if text.chars().count() > max {
        violations.add(path, Fault::TooLong, format!("must have at most {max} characters"));
    }
    if text.contains(is_hidden) {
        violations.add(
            path,
            Fault::Pattern,
            "must not hold control characters, line breaks or invisible formatting",
        );
    }
}

/// Several lines of at most `max` bytes.
pub(crate) fn paragraph(violations: &mut Violations, path: &str, text: &str, max: usize) {
    if text.len() > max {
        violations.add(path, Fault::TooLong, format!("must have at most {max} bytes"));
    }
    if text.contains('\0') {
        violations.add(path, Fault::Pattern, "must not hold the character NUL");
    }
}

/// Annotations for tools.
pub(crate) fn annotations(violations: &mut Violations, path: &str, annotations: &BTreeMap<String, String>) {
    if annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_ANNOTATIONS {
        violations.add(path, Fault::TooLong, format!("must have at most {MAX_ANNOTATIONS} bytes in all"));
    }
}

/// Labels or annotations that are the platform's own: a caller leaves them as they were `before`.
pub(crate) fn reserved(
    violations: &mut Violations,
    path: &str,
    after: &BTreeMap<String, String>,
    before: Option<&BTreeMap<String, String>>,
) {
    let none = BTreeMap::new();
    let before = before.unwrap_or(&none);
    let keys: BTreeSet<&String> = after.keys().chain(before.keys()).collect();
    for key in keys.into_iter().filter(|key| is_reserved_key(key) && after.get(*key) != before.get(*key)) {
        violations.add(format!("{path}.{key}"), Fault::Reserved, RESERVED_KEY);
    }
}

/// A JSON value that the databases can keep.
pub(crate) fn json(violations: &mut Violations, path: &str, value: &Json) {
    if value.to_string().len() > MAX_JSON {
        violations.add(path, Fault::TooLong, format!("must have at most {MAX_JSON} bytes as JSON"));
    }
    depth(violations, path, value);
    if contains_nul(value) {
        violations.add(path, Fault::Pattern, "must not hold the character NUL");
    }
    unmarked(violations, path, value);
    exact(violations, path, value);
}

/// Refuses numbers that callers would be given as others. Requests are refused before they come here; documents are not.
pub(crate) fn exact(violations: &mut Violations, path: &str, value: &Json) {
    for at in inexact_paths(value, MAX_NAMED) {
        // Within documents indices are parts like any other.
        let at = at.replace('[', ".").replace(']', "");
        violations.add(format!("{path}{at}"), Fault::OutOfRange, INEXACT);
    }
}

/// Refuses what could not be given to callers again. Requests are refused before they come here; documents are not.
pub(crate) fn depth(violations: &mut Violations, path: &str, value: &Json) {
    if deeper_than(value, MAX_DEPTH) {
        violations.add(path, Fault::TooDeep, format!("nests deeper than {MAX_DEPTH} levels"));
    }
}

/// Refuses what would be taken for a secret, or for a value that is known later: only the platform makes those.
pub(crate) fn unmarked(violations: &mut Violations, path: &str, value: &Json) {
    if let Some(at) = pavior_expr::marker_path(value) {
        let at = super::violation_path(path, &at);
        violations.add(
            at,
            Fault::Reserved,
            "must not have a key `$secret` or `$unknown`: only the platform makes those",
        );
    }
}

/// The known id that somebody who wrote `id` most likely meant, if one is similar enough.
pub(crate) fn nearest<'a>(id: &str, known: impl IntoIterator<Item = &'a String>) -> Option<&'a str> {
    let distances = known.into_iter().map(|known| (distance(id, known), known));
    let (distance, nearest) = distances.min()?;
    (distance <= 1 + id.len() / 4).then_some(nearest.as_str())
}

/// Shortens user input for a message.
pub(crate) fn shown(text: &str) -> String {
    if text.chars().count() <= 80 {
        return text.to_owned();
    }
    text.chars().take(80).chain(std::iter::once('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_id_is_a_slip_away() {
        let known = ["payments".to_owned(), "platform".to_owned()];
        for (id, wanted) in [
            ("paymnets", Some("payments")),
            ("payment", Some("payments")),
            ("plattform", Some("platform")),
            ("web", None),
        ] {
            assert_eq!(nearest(id, &known), wanted, "{id}");
        }
        assert_eq!(nearest("payments", &[]), None);
    }

    #[test]
    fn what_looks_like_a_secret_is_refused_where_it_stands() {
        let mut violations = Violations::new();
        json(&mut violations, "spec", &crate::json::json!({"a": [{"$secret": "x/1/password"}]}));
        let paths: Vec<&str> = violations.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(paths, ["spec.a.0"]);
    }

    #[test]
    fn numbers_that_would_come_back_as_others_are_refused_where_they_stand() {
        let mut violations = Violations::new();
        json(&mut violations, "spec", &crate::json::json!({"a": [1, {"b": 9_007_199_254_740_993_u64}]}));
        let paths: Vec<&str> = violations.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(paths, ["spec.a.1.b"]);
    }

    #[test]
    fn nul_is_refused_wherever_it_stands() {
        let mut violations = Violations::new();
        json(&mut violations, "spec", &crate::json::json!({"a": [{"b": "x\0"}]}));
        line(&mut violations, "display_name", "a\0", 10);
        paragraph(&mut violations, "description", "\0", 10);
        assert_eq!(violations.len(), 3, "{violations:?}");
    }
}
