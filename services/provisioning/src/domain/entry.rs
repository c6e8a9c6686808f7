//! Entries of the catalog: a component in it is a resource of its project like any other, and policy is asked about it
//! like about any other change of the catalog.

use pavior_core::id::validate_id_in;
use serde_json::Value;

use super::facts::{Current, Matched, holds_unknown};
use super::form::form;
use super::names;
use super::scope::ProjectScope;

/// An entry of the catalog that a change makes, changes or removes. Policy is asked about it as if somebody changed the
/// catalog by hand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// The entity as it is recorded, by its identity; empty when there is none.
    pub before: String,
    /// The entity that there will be; empty when it goes.
    pub after: String,
    /// Who is to own it, by resource name; empty for nobody.
    pub owner: String,
}

form!(Entry { before, after, owner });

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
    let organization = names::organization_of(&project.name);
    Ok(Some(Entry {
        before: current.map(|current| current.identity.clone()).unwrap_or_default(),
        after: format!("organizations/{organization}/kinds/{kind}/entities/{id}"),
        owner: owner.to_owned(),
    }))
}
