//! How deep values may nest.

use serde_json::Value;

/// The deepest nesting of lists and objects in a value that callers are given: protobuf's decoders take a hundred
/// messages in one another, and a level of an object is three of them.
pub const MAX_DEPTH: u32 = 32;

/// Whether lists and objects stand in one another on more than so many levels.
pub fn deeper_than(value: &Value, levels: u32) -> bool {
    let below = |item: &Value| levels == 0 || deeper_than(item, levels - 1);
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(below),
        Value::Object(map) => levels == 0 || map.values().any(below),
        _ => false,
    }
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
}
