//! Names of resources in requests: of the right form, and in the organization of the permit.

use pavior_auth::Permit;
use pavior_core::resource::{Violation, Violations};
use pavior_core::{Fault, ResourceName};
use pavior_proto::shape;

use crate::error::Error;
use crate::message::Wire;

/// A resource name of a request, in the organization of the permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The whole name.
    pub name: String,
    /// See [`Scope::parent`](crate::Scope::parent).
    pub parent: String,
    /// The last part.
    pub id: String,
}

/// Reads the name of a resource.
///
/// # Errors
/// A name of another form, or in another organization than the permit's.
pub fn name<T: Wire>(permit: &Permit, field: &str, name: &str, action: &str) -> Result<Named, Error> {
    let pattern = <T::Message as shape::Resource>::PATTERN;
    let parsed = parse(permit, field, name, pattern, action)?;
    let parent = above(pattern).and_then(|collection| parsed.get(collection)).unwrap_or_default();
    Ok(Named { parent: parent.to_owned(), id: parsed.id().to_owned(), name: parsed.to_string() })
}

/// Reads the name of what a resource is made or listed in: the id of the resource above, other than the organization.
/// `None` for the wildcard `-`, where it is allowed.
///
/// # Errors
/// As [`name`].
pub fn parent<T: Wire>(
    permit: &Permit,
    field: &str,
    name: &str,
    wildcard: bool,
    action: &str,
) -> Result<Option<String>, Error> {
    let own = <T::Message as shape::Resource>::PATTERN;
    let pattern = own.rsplit_once('/').and_then(|(rest, _)| rest.rsplit_once('/'));
    let pattern = pattern.map(|(rest, _)| rest).unwrap_or_default();
    let Some(collection) = above(own) else {
        parse(permit, field, name, pattern, action)?;
        return Ok(Some(String::new()));
    };
    let organization = name.strip_suffix(&format!("/{collection}/-")).filter(|_| wildcard);
    if let Some(organization) = organization {
        parse(permit, field, organization, "organizations/{organization}", action)?;
        return Ok(None);
    }
    let parsed = parse(permit, field, name, pattern, action)?;
    Ok(Some(parsed.get(collection).unwrap_or_default().to_owned()))
}

/// Reads a name and demands that the call is confined to its organization.
///
/// # Errors
/// As [`name`].
pub fn parse(
    permit: &Permit,
    field: &str,
    name: &str,
    pattern: &str,
    action: &str,
) -> Result<ResourceName, Error> {
    let invalid = |message: String| {
        Error::Invalid(vec![Violation { path: field.to_owned(), fault: Fault::Pattern, message }])
    };
    let parsed = ResourceName::parse_as(name, pattern).map_err(|error| invalid(error.to_string()))?;
    if parsed.organization() == permit.organization() {
        return Ok(parsed);
    }
    let (caller, permitted) = (permit.caller(), permit.organization());
    tracing::warn!(caller, permitted, action, name, "the permit is for another organization");
    Err(Error::Denied { action: action.to_owned(), resource: name.to_owned() })
}

/// The id in the name of a resource of the same organization, for a field of a message.
pub fn id_of<R: shape::Resource>(
    violations: &mut Violations,
    path: &str,
    name: &str,
    organization: &str,
) -> Option<String> {
    let parsed = violations.check(path, Fault::Pattern, ResourceName::parse_as(name, R::PATTERN))?;
    if parsed.organization() != organization {
        violations.add(path, Fault::Conflict, format!("`{name}` is not in `organizations/{organization}`"));
        return None;
    }
    Some(parsed.id().to_owned())
}

/// The collections of a pattern, from the organization's down.
fn collections(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('/').step_by(2)
}

/// The collection that the resources of a type stand in.
pub(crate) fn collection_of<T: Wire>() -> &'static str {
    collections(<T::Message as shape::Resource>::PATTERN).last().unwrap_or_default()
}

/// The collection of the resource above, if that is not the organization.
pub(crate) fn above(pattern: &str) -> Option<&str> {
    let all: Vec<&str> = collections(pattern).collect();
    match all.as_slice() {
        [_, .., above, _] => Some(above),
        _ => None,
    }
}
