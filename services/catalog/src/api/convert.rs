//! What several resources have in common on the wire.

use std::collections::{BTreeMap, HashMap};

use pavior_core::Fault;
use pavior_rpc::convert::{from_struct, to_struct};
use prost_types::Struct;

use crate::domain::{Schema, Violations};
use crate::json::{Json, json};

/// The pattern of the name of an organization.
pub(super) const ORGANIZATION: &str = "organizations/{organization}";

/// A JSON object on the wire.
pub(super) fn to_pb_struct(value: &Json) -> Option<Struct> {
    to_struct(value).ok()
}

/// A JSON object from the wire; an absent one is empty.
pub(super) fn from_pb_struct(value: Option<&Struct>) -> Json {
    value.map_or_else(|| json!({}), from_struct)
}

pub(super) fn to_hash_map(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

pub(super) fn from_hash_map(map: &HashMap<String, String>) -> BTreeMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A schema from the wire.
pub(super) fn schema(violations: &mut Violations, field: &str, text: &str) -> Schema {
    violations.check(field, Fault::Syntax, Schema::parse(text)).unwrap_or_default()
}
