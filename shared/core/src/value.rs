//! What values may be: how deep they nest, and how large their numbers are.

use serde_json::{Number, Value};

/// The deepest nesting of lists and objects in a value that callers are given: protobuf's decoders take a hundred
/// messages in one another, and a level of an object is three of them.
pub const MAX_DEPTH: u32 = 32;

/// The largest whole number, in either direction, that a value may hold. A number of `google.protobuf.Value` is a double,
/// and beyond this one (RFC 7493) a double stands for several whole numbers: it may have been another one when it was sent.
pub const MAX_EXACT: i64 = (1 << 53) - 1;

/// What is said about a number beyond [`MAX_EXACT`].
pub const INEXACT: &str = "must be between -9007199254740991 and 9007199254740991, because numbers of values are doubles: \
                           give a larger one as a text";

/// Whether lists and objects stand in one another on more than so many levels.
pub fn deeper_than(value: &Value, levels: u32) -> bool {
    let below = |item: &Value| levels == 0 || deeper_than(item, levels - 1);
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(below),
        Value::Object(map) => levels == 0 || map.values().any(below),
        _ => false,
    }
}

/// Where numbers beyond [`MAX_EXACT`] stand, `.a.b[0]`; at most so many of them.
pub fn inexact_paths(value: &Value, most: usize) -> Vec<String> {
    let mut found = Vec::new();
    collect(value, &mut String::new(), most, &mut found);
    found
}

fn collect(value: &Value, path: &mut String, most: usize, found: &mut Vec<String>) {
    let above = path.len();
    match value {
        Value::Number(number) if found.len() < most && !is_exact(number) => found.push(path.clone()),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                collect(item, path, most, found);
                path.truncate(above);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                path.push('.');
                path.push_str(key);
                collect(item, path, most, found);
                path.truncate(above);
            }
        }
        _ => {}
    }
}

/// What is no whole number has a fraction, and is smaller than any that would be refused.
fn is_exact(number: &Number) -> bool {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(number), _, _) => (-MAX_EXACT..=MAX_EXACT).contains(&number),
        (None, Some(_), _) => false,
        (None, None, number) => number.is_some_and(is_exact_double),
    }
}

/// Whether a double stands for one number only, or for one that is no whole number.
pub fn is_exact_double(number: f64) -> bool {
    // The conversion is exact.
    number.abs() <= MAX_EXACT as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn levels_are_lists_and_objects() {
        for (value, levels) in
            [(json!(1), 0), (json!([]), 1), (json!({}), 1), (json!({ "a": [1, { "b": null }] }), 3)]
        {
            assert!(!deeper_than(&value, levels), "{value}");
            assert!(levels == 0 || deeper_than(&value, levels - 1), "{value}");
        }
    }

    #[test]
    fn numbers_that_a_double_cannot_tell_apart_are_found() {
        let value = json!({
            "fine": [0, -1, 0.5, 1e15, MAX_EXACT, -MAX_EXACT, "9007199254740993"],
            "a": [{ "b": MAX_EXACT + 1 }, 1],
            "c": [-MAX_EXACT - 1, u64::MAX, 1e300, 9_007_199_254_740_992.0],
        });
        assert_eq!(inexact_paths(&value, 10), [".a[0].b", ".c[0]", ".c[1]", ".c[2]", ".c[3]"]);
        assert_eq!(inexact_paths(&value, 2).len(), 2);
        assert_eq!(inexact_paths(&json!(1e16), 2), [""]);
        assert!(INEXACT.contains(&MAX_EXACT.to_string()));
    }
}
