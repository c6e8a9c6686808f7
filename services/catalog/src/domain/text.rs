//! Limits of texts, labels and annotations.

use pavior_core::Fault;
use std::collections::{BTreeMap, BTreeSet};

use pavior_core::name::{RESERVED_KEY, is_reserved_key};
use pavior_core::nearest::distance;
pub(crate) use pavior_core::resource::{MAX_DISPLAY_NAME, line, paragraph};
use pavior_core::value::{INEXACT, MAX_DEPTH, deeper_than, inexact_paths};

use super::Violations;
use crate::json::{Json, contains_nul};

/// Longest description, in bytes.
pub(crate) const MAX_DESCRIPTION: usize = 16 * 1024;
/// Most labels.
pub(crate) const MAX_LABELS: usize = 64;
/// Longest key of a label, in characters.
pub(crate) const MAX_LABEL_KEY: usize = 128;
/// Longest value of a label, in characters.
pub(crate) const MAX_LABEL_VALUE: usize = 256;
/// All annotations together, in bytes.
pub(crate) const MAX_ANNOTATIONS: usize = 64 * 1024;
/// Most tags.
pub(crate) const MAX_TAGS: usize = 64;
/// So many numbers that are too large are named at once.
const MAX_NAMED: usize = 20;
/// Largest spec or schema, as JSON text in bytes.
pub(crate) const MAX_JSON: usize = 256 * 1024;

/// Labels to select by.
pub(crate) fn labels(violations: &mut Violations, path: &str, labels: &BTreeMap<String, String>) {
    if labels.len() > MAX_LABELS {
        violations.add(path, Fault::TooMany, format!("must have at most {MAX_LABELS} entries"));
    }
    for (key, value) in labels {
        let at = format!("{path}.{key}");
        if !is_label_key(key) {
            violations.add(
                &at,
                Fault::Pattern,
                format!("the key must be 1 to {MAX_LABEL_KEY} letters, digits or `-_./`"),
            );
        }
        line(violations, &at, value, MAX_LABEL_VALUE);
    }
}

fn is_label_key(key: &str) -> bool {
    (1..=MAX_LABEL_KEY).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
}

/// Annotations for tools.
pub(crate) fn annotations(violations: &mut Violations, path: &str, annotations: &BTreeMap<String, String>) {
    if annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_ANNOTATIONS {
        violations.add(path, Fault::TooLong, format!("must have at most {MAX_ANNOTATIONS} bytes in all"));
    }
    for (key, value) in annotations {
        if key.is_empty() || key.chars().any(|c| c.is_control() || c.is_whitespace()) {
            violations.add(
                format!("{path}.{key}"),
                Fault::Required,
                "the key must not be empty or hold spaces",
            );
        }
        if value.contains('\0') {
            violations.add(format!("{path}.{key}"), Fault::Pattern, "must not hold the character NUL");
        }
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

/// Short words to find something by.
pub(crate) fn tags(violations: &mut Violations, path: &str, tags: &[String]) {
    if tags.len() > MAX_TAGS {
        violations.add(path, Fault::TooMany, format!("must have at most {MAX_TAGS} entries"));
    }
    for (index, tag) in tags.iter().enumerate() {
        let ok = (1..=63).contains(&tag.chars().count())
            && !tag.chars().any(|c| c.is_whitespace() || c.is_control());
        if !ok {
            violations.add(
                format!("{path}.{index}"),
                Fault::Pattern,
                "must be 1 to 63 characters without spaces",
            );
        }
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

/// As [`pavior_core::validate_id`], for a field of a message.
pub(crate) fn id(violations: &mut Violations, path: &str, id: &str) {
    violations.check(path, Fault::Pattern, pavior_core::validate_id(id));
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
    fn label_keys_table() {
        for key in ["team", "a.b/c-d_E", "backstage.io/techdocs-ref"] {
            assert!(is_label_key(key), "{key}");
        }
        for key in ["", "a b", "ä", &"k".repeat(129)] {
            assert!(!is_label_key(key), "{key}");
        }
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
        annotations(&mut violations, "annotations", &[("k".to_owned(), "\0".to_owned())].into());
        assert_eq!(violations.len(), 4, "{violations:?}");
    }
}
