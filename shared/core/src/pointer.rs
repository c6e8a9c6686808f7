//! JSON Pointers (RFC 6901): where in a JSON value something is, whatever its keys are made of.

use std::borrow::Cow;

/// The pointer to a member or element of what `parent` points to.
#[must_use]
pub fn child(parent: &str, key: &str) -> String {
    format!("{parent}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Whether this is a pointer; the empty one points to the whole.
#[must_use]
pub fn is_valid(pointer: &str) -> bool {
    let escaped = |token: &str| token.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    pointer.is_empty() || (pointer.starts_with('/') && pointer.split('/').all(escaped))
}

/// The keys and positions of a pointer, outermost first.
pub fn tokens(pointer: &str) -> impl Iterator<Item = Cow<'_, str>> {
    pointer.split('/').skip(1).map(|token| match token.contains('~') {
        true => Cow::Owned(token.replace("~1", "/").replace("~0", "~")),
        false => Cow::Borrowed(token),
    })
}

/// Whether `pointer` points to what `pattern` does, or into it. In a pattern `*` stands for any key or position; what is no
/// pointer covers nothing.
#[must_use]
pub fn covers(pattern: &str, pointer: &str) -> bool {
    if !is_valid(pattern) {
        return false;
    }
    let mut inside = tokens(pointer);
    tokens(pattern).all(|wanted| inside.next().is_some_and(|token| wanted == "*" || wanted == token))
}

/// The same place in the form that the fields of requests are named in: `steps.0.name`.
#[must_use]
pub fn dotted(pointer: &str) -> String {
    tokens(pointer).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_can_be_pointed_to() {
        let pointer = child(&child("", "labels"), "app.kubernetes.io/na~me");
        assert_eq!(pointer, "/labels/app.kubernetes.io~1na~0me");
        assert_eq!(tokens(&pointer).collect::<Vec<_>>(), ["labels", "app.kubernetes.io/na~me"]);
        let value = serde_json::json!({ "labels": { "app.kubernetes.io/na~me": 1, "": 2, "~1": 3 } });
        assert_eq!(value.pointer(&pointer).and_then(serde_json::Value::as_i64), Some(1));
        for (key, wanted) in [("", 2), ("~1", 3)] {
            let found = value.pointer(&child("/labels", key));
            assert_eq!(found.and_then(serde_json::Value::as_i64), Some(wanted), "{key}");
        }
        assert_eq!(tokens("").count(), 0);
        assert!(["", "/", "/a/0", "/a~1b"].into_iter().all(is_valid));
        assert!(!["a", "a/b", "/a~", "/a~2b"].into_iter().any(is_valid));
    }

    #[test]
    fn a_pattern_covers_what_it_points_to_and_all_below() {
        for (pattern, pointer, wanted) in [
            ("/a", "/a", true),
            ("/a", "/a/b/0", true),
            ("/a", "/ab", false),
            ("/a/b", "/a", false),
            ("/steps/*/env", "/steps/3/env/TOKEN", true),
            ("/steps/*/env", "/steps/3/name", false),
            ("", "/anything", true),
            ("/*", "", false),
            ("a", "/a", false),
            ("*", "/a", false),
        ] {
            assert_eq!(covers(pattern, pointer), wanted, "{pattern} {pointer}");
        }
    }
}
