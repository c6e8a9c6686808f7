use std::fmt;

use pavior_core::pointer;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is recorded of a resource since its last apply.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Prior {
    /// Identity from the last success (or partial failure).
    pub identity: String,
    /// Inputs of the last apply, with secrets as references.
    pub inputs: Value,
    /// Plain outputs of the last apply.
    pub outputs: Value,
    /// The driver's private state.
    pub state: Value,
}

/// Asks for a check of inputs.
#[derive(Debug, Clone)]
pub struct ValidateRequest {
    /// Resource type id, such as `sql-database`.
    pub resource_type: String,
    /// Inputs; unknown values and secret references as markers.
    pub inputs: Value,
}

/// Asks what an apply would do.
#[derive(Debug, Clone)]
pub struct PlanRequest {
    /// Resource type id.
    pub resource_type: String,
    /// What is recorded, or nothing for a new resource.
    pub prior: Option<Prior>,
    /// Desired inputs, or nothing for removal.
    pub desired: Option<Value>,
}

/// Asks what a plan has to hold fast.
#[derive(Debug, Clone)]
pub struct PinRequest {
    /// Organization id.
    pub organization: String,
    /// Resource type id.
    pub resource_type: String,
    /// For an action: the resource to act on, and the action's name. None for an apply.
    pub action: Option<(String, String)>,
    /// Inputs of the apply, or arguments of the action; unknown values and secret references as markers.
    pub inputs: Value,
}

/// What a plan says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanResponse {
    /// The action that apply or destroy would take.
    pub action: PlanAction,
    /// Per field; secrets stay references.
    pub diff: Vec<FieldDiff>,
    /// Fields whose change forces replacement.
    pub forces_replacement: Vec<String>,
}

/// Actions of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PlanAction {
    /// Nothing to do.
    Noop,
    /// A new resource.
    Create,
    /// A change in place.
    Update,
    /// Destroy, then create.
    Replace,
    /// Removal.
    Delete,
}

/// One field that would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldDiff {
    /// Where in the inputs, as a JSON Pointer: `/steps/0/name`.
    pub path: String,
    /// Value now; absent when the field is new.
    pub before: Option<Value>,
    /// Value afterwards; absent when the field goes.
    pub after: Option<Value>,
}

/// One wrong field of the inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where in the inputs, as a JSON Pointer; empty for the whole.
    pub path: String,
    /// What is wrong, lower case.
    pub message: String,
}

/// Asks to create or update.
#[derive(Clone)]
pub struct ApplyRequest {
    /// Resource type id.
    pub resource_type: String,
    /// What is recorded, or nothing for a new resource.
    pub prior: Option<Prior>,
    /// Inputs with every secret resolved: may hold secrets in the clear, so they are never printed.
    pub inputs: Value,
    /// The secrets that stand in `inputs`, for redaction.
    pub sensitive: Vec<SecretString>,
    /// A keyed digest of what is declared by this call, which tells nothing else. The driver keeps it with the thing when
    /// the call ended well; [`Listed`] and [`crate::Found`] have it.
    pub declaration_digest: String,
}

/// Asks to remove.
#[derive(Debug, Clone)]
pub struct DestroyRequest {
    /// Resource type id.
    pub resource_type: String,
    /// What to remove: by identity, or by the key whose outcome is not known.
    pub lookup: Lookup,
    /// The driver's private state, as recorded.
    pub state: Value,
}

/// Asks for a look.
#[derive(Debug, Clone)]
pub struct ObserveRequest {
    /// Resource type id.
    pub resource_type: String,
    /// By identity or by key.
    pub lookup: Lookup,
}

/// What a resource cannot be destroyed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dependents {
    /// Its driver never refuses to destroy it for the sake of others.
    Ignored,
    /// These need it now, by the names that their makers give them; there may be others later.
    Are(Vec<String>),
}

/// How a resource is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// By the identity of a success.
    Identity(String),
    /// By the idempotency key of the apply that (perhaps) made it.
    Key(String),
}

/// Asks for a day-2 action.
#[derive(Clone)]
pub struct InvokeRequest {
    /// Resource type id.
    pub resource_type: String,
    /// The resource to act on.
    pub identity: String,
    /// Action name, as the type declares it.
    pub action: String,
    /// Arguments with every secret resolved: may hold secrets in the clear, so they are never printed.
    pub arguments: Value,
    /// The secrets that stand in `arguments`, for redaction.
    pub sensitive: Vec<SecretString>,
    /// The driver's private state, as recorded.
    pub state: Value,
}

impl fmt::Debug for ApplyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplyRequest")
            .field("resource_type", &self.resource_type)
            .field("identity", &self.prior.as_ref().map(|prior| &prior.identity))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for InvokeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvokeRequest")
            .field("resource_type", &self.resource_type)
            .field("identity", &self.identity)
            .field("action", &self.action)
            .finish_non_exhaustive()
    }
}

/// The generic plan: field by field, immutable fields force replacement. Most drivers need no other.
#[must_use]
pub fn diff(prior: Option<&Value>, desired: Option<&Value>, immutable: &[String]) -> PlanResponse {
    let mut changes = Vec::new();
    // At the root an absent side reads as an empty object, so that a create lists its fields one by one.
    let empty = Value::Object(serde_json::Map::new());
    walk("", Some(prior.unwrap_or(&empty)), Some(desired.unwrap_or(&empty)), &mut changes);
    let forces: Vec<String> = immutable
        .iter()
        .filter(|field| changes.iter().any(|change| pointer::covers(field, &change.path)))
        .cloned()
        .collect();
    let action = match (prior, desired) {
        (None, None) => PlanAction::Noop,
        (None, Some(_)) => PlanAction::Create,
        (Some(_), None) => PlanAction::Delete,
        (Some(_), Some(_)) if changes.is_empty() => PlanAction::Noop,
        (Some(_), Some(_)) if forces.is_empty() => PlanAction::Update,
        (Some(_), Some(_)) => PlanAction::Replace,
    };
    let forces_replacement = if action == PlanAction::Replace { forces } else { Vec::new() };
    PlanResponse { action, diff: changes, forces_replacement }
}

fn is_marker(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.len() == 1 && map.keys().all(|key| key.starts_with('$')))
}

fn walk(path: &str, before: Option<&Value>, after: Option<&Value>, out: &mut Vec<FieldDiff>) {
    if before == after {
        return;
    }
    let leaf = |value: Option<&Value>| value.is_some_and(is_marker);
    if let (Some(Value::Object(b)), Some(Value::Object(a))) = (before, after)
        && !leaf(before)
        && !leaf(after)
    {
        let added = a.keys().filter(|key| !b.contains_key(*key));
        for key in b.keys().chain(added) {
            walk(&pointer::child(path, key), b.get(key), a.get(key), out);
        }
        return;
    }
    if let (Some(Value::Array(b)), Some(Value::Array(a))) = (before, after) {
        for index in 0..b.len().max(a.len()) {
            walk(&pointer::child(path, &index.to_string()), b.get(index), a.get(index), out);
        }
        return;
    }
    out.push(FieldDiff { path: path.to_owned(), before: before.cloned(), after: after.cloned() });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_inputs_are_noop() {
        let value = json!({"a": 1});
        assert_eq!(diff(Some(&value), Some(&value), &[]).action, PlanAction::Noop);
    }

    #[test]
    fn create_lists_every_field() {
        let plan = diff(None, Some(&json!({"a": 1, "b": {"c": 2}})), &["/a".to_owned()]);
        assert_eq!(plan.action, PlanAction::Create);
        let paths: Vec<&str> = plan.diff.iter().map(|d| d.path.as_str()).collect();
        assert_eq!(paths, ["/a", "/b"]);
        assert!(plan.forces_replacement.is_empty());
    }

    #[test]
    fn immutable_field_forces_replacement() {
        let immutable = ["/a".to_owned()];
        let plan = diff(Some(&json!({"a": {"x": 1}})), Some(&json!({"a": {"x": 2}})), &immutable);
        assert_eq!(plan.action, PlanAction::Replace);
        assert_eq!(plan.forces_replacement, ["/a"]);
        assert_eq!(plan.diff[0].path, "/a/x");
    }

    #[test]
    fn unknown_marker_is_one_change() {
        let plan = diff(Some(&json!({"url": "x"})), Some(&json!({"url": {"$unknown": "e"}})), &[]);
        assert_eq!(plan.action, PlanAction::Update);
        assert_eq!(plan.diff[0].path, "/url");
    }
}

/// Asks for a part of what a driver has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// At most so many; at least 1.
    pub page_size: usize,
    /// [`ListResponse::next_page_token`] of the page before; empty for the first one. A token that the driver never gave is
    /// refused as [`crate::FailureCode::InvalidArgument`].
    pub page_token: String,
}

/// A part of what a driver has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListResponse {
    /// In order of identity, over all pages.
    pub resources: Vec<Listed>,
    /// Where to go on; opaque, empty at the end. What is made or removed meanwhile may be told or not.
    pub next_page_token: String,
}

/// A thing that a driver has, as far as it says so itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The driver's name of the thing.
    pub identity: String,
    /// Resource type id.
    pub resource_type: String,
    /// Organization id.
    pub organization: String,
    /// Full name of the resource that it was made for.
    pub resource: String,
    /// The idempotency key of the call that made it.
    pub key: String,
    /// The declaration digest of the last apply that ended well; empty when the driver does not keep it.
    pub declaration_digest: String,
}
