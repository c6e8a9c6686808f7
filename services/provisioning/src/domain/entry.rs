//! Entries of the catalog: a component in it is a resource of its project like any other, and policy is asked about it
//! like about any other change of the catalog.

use std::collections::{BTreeMap, BTreeSet};

use pavior_core::name::validate_id_in;
use serde_json::Value;

use super::names;
use super::planner::{Current, Matched, holds_unknown};
use super::scope::ProjectScope;

/// An entry of the catalog that a change makes, changes or removes. Policy is asked about it as if somebody changed the
/// catalog by hand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// The entity as it is recorded, by resource name; empty when there is none.
    pub before: String,
    /// The entity that there will be; empty when it goes.
    pub after: String,
    /// Who is to own it, by resource name; empty for nobody.
    pub owner: String,
}

/// The owner as policy knows it: groups only. What a user owns is decided on as if nobody owned it.
pub fn owning_group(owner: &str) -> &str {
    if owner.contains("/users/") { "" } else { owner }
}

/// The entry of the catalog that a change is, or the input of it that keeps it from being planned, and why.
pub fn planned(
    project: &ProjectScope,
    matched: &Matched,
    current: Option<&Current>,
    desired: &Value,
) -> Result<Option<Entry>, (&'static str, String)> {
    if matched.driver != names::ENTITY_DRIVER {
        return Ok(None);
    }
    let known = |key| match desired.get(key) {
        Some(value) if holds_unknown(value) => {
            Err((key, "must be known when this is planned: policy is asked about it".to_owned()))
        }
        // What is missing or no text, the driver refuses.
        value => Ok(value.and_then(Value::as_str).unwrap_or_default()),
    };
    let (kind, id, owner) = (known("kind")?, known("id")?, known("owner")?);
    for (path, collection, id) in [("kind", "kinds", kind), ("id", "entities", id)] {
        validate_id_in(collection, id).map_err(|error| (path, error.to_string()))?;
    }
    let organization = project.name.split('/').nth(1).unwrap_or_default();
    Ok(Some(Entry {
        before: current.map(|current| current.identity.clone()).unwrap_or_default(),
        after: format!("organizations/{organization}/kinds/{kind}/entities/{id}"),
        owner: owner.to_owned(),
    }))
}

/// The entries that declare a relation to this one, by resource name. The catalog shows relations of both sides alike,
/// by type and target; those that the entry declares itself are of its owner, and of fields of its `spec`, at most one type
/// for each.
/// Two that point at each other by more fields than types are not told apart: the catalog has the last word.
pub fn dependents<'a>(
    owner: &str,
    spec: &Value,
    relations: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<String> {
    let mut types: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (relation, target) in relations.filter(|(_, target)| target.contains("/kinds/")) {
        types.entry(target).or_default().insert(relation);
    }
    let fields = |target: &str| {
        let fields = spec.as_object().into_iter().flatten();
        let declared = fields.filter(|(_, field)| refers(field, names::last(target))).count();
        declared + usize::from(refers(&Value::from(owner), names::last(target)))
    };
    let more = types.into_iter().filter(|(target, types)| types.len() > fields(target));
    more.map(|(target, _)| target.to_owned()).collect()
}

/// Whether a field of a `spec` may mean the entity of this id, by whatever kind and namespace.
fn refers(field: &Value, id: &str) -> bool {
    match field {
        Value::String(text) => {
            let last = text.trim().rsplit(['/', ':']).next().unwrap_or_default().to_ascii_lowercase();
            let last = last.replace(['_', '.', '@'], "-");
            !last.is_empty()
                && id.strip_suffix(&last).is_some_and(|rest| rest.is_empty() || rest.ends_with('-'))
        }
        Value::Array(items) => items.iter().any(|item| refers(item, id)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_declare_is_told_from_what_the_entry_declares_itself() {
        let full = |id: &str| match id.split_once('/') {
            Some((kind, id)) => format!("organizations/acme/kinds/{kind}/entities/{id}"),
            None => format!("organizations/acme/kinds/group/entities/{id}"),
        };
        let found = |spec: Value, seen: &[(&str, &str)]| {
            let seen: Vec<(&str, String)> = seen.iter().map(|(kind, id)| (*kind, full(id))).collect();
            dependents(
                "organizations/acme/groups/team-a",
                &spec,
                seen.iter().map(|(kind, target)| (*kind, target.as_str())),
            )
        };
        let owned = ("ownedBy", "team-a");
        assert_eq!(found(json!({}), &[owned]), Vec::<String>::new());
        let spec =
            json!({ "system": "shop", "dependsOn": ["resource:default/Cart_DB", "component:pay/stock"] });
        let own = [
            owned,
            ("partOf", "system/shop"),
            ("dependsOn", "resource/cart-db"),
            ("dependsOn", "component/pay-stock"),
        ];
        assert_eq!(found(spec.clone(), &own), Vec::<String>::new());
        let mut all = own.to_vec();
        // One that nothing is said of here, and one that needs what it is needed by.
        all.extend([("dependencyOf", "component/cart"), ("dependencyOf", "component/pay-stock")]);
        assert_eq!(found(spec, &all), [full("component/cart"), full("component/pay-stock")]);
    }
}
