//! JSON as plain data. The domain handles specs, schemas and documents as values; how they are written down is
//! not its business, so it takes them from here rather than from a serialization crate.

pub(crate) use serde_json::{Map as JsonMap, Value as Json, json};

/// Whether a NUL character stands anywhere in the value. PostgreSQL can keep it neither in text nor in JSON.
pub(crate) fn contains_nul(value: &Json) -> bool {
    match value {
        Json::String(text) => text.contains('\0'),
        Json::Array(items) => items.iter().any(contains_nul),
        Json::Object(map) => map.iter().any(|(key, item)| key.contains('\0') || contains_nul(item)),
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}
