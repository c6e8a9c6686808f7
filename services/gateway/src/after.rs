//! What a call makes of a resource, as far as policy looks at it: who owns it then, and its labels.

use std::collections::HashMap;

use bytes::Bytes;
use pavior_core::Fault;
use pavior_core::name::ResourceName;
use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
use pavior_rpc::mask;
use pavior_rpc::problem::Problem;

use crate::field;
use crate::resource::Resource;
use crate::routes::{Field, Method};

const GROUP: &str = "organizations/{organization}/groups/{group}";
pub(crate) const USER: &str = "organizations/{organization}/users/{user}";

/// What policy is asked about beside the resource as it is.
#[derive(Debug, Default)]
pub(crate) struct After<'a> {
    /// The group that is to own it; empty for nobody whom policy knows.
    pub(crate) new_owner: &'a str,
    /// It goes to the group from whoever has it now.
    pub(crate) moves_owner: bool,
    /// Those that it has then; empty where the call has nothing to do with labels.
    pub(crate) labels: HashMap<String, String>,
    /// They take the place of others.
    pub(crate) changes_labels: bool,
}

impl<'a> After<'a> {
    /// Nothing but an owner.
    pub(crate) fn owned_by(group: &'a str, moves: bool) -> Self {
        Self { new_owner: group, moves_owner: moves, ..Self::default() }
    }

    /// Reads it from a request. What an update `creates` is as the request says, whatever the mask.
    pub(crate) fn read(
        message: &'a Bytes,
        method: &Method,
        resource: &Resource,
        facts: &ResourceFacts,
        creates: bool,
    ) -> Result<Self, Problem> {
        let mask = method.update_mask.as_ref().filter(|_| !creates);
        let paths = mask.map(|mask| field::strings_at(message, &mask.numbers)).transpose()?;
        // Before it is asked what the update is allowed to change.
        mask::unambiguous(paths.iter().flatten().copied())?;
        let after = owner_after(message, method, resource, paths.as_deref())?;
        let Some(field) = &method.labels else { return Ok(after) };
        let given = field::texts_at(message, &field.numbers)?;
        // What does not exist has no labels that could change.
        let Some(paths) = paths.filter(|_| facts.exists) else { return Ok(Self { labels: given, ..after }) };
        let labels = mask::map_after(&facts.labels, given, &paths, within(field));
        let changes_labels = labels != facts.labels;
        Ok(Self { labels, changes_labels, ..after })
    }
}

/// The group that is to own what is made, or that a resource goes to, if the call says so. Policy knows groups of this
/// organization only: what a user is to own is decided on as if nobody was to. `paths` are those of an update's mask.
fn owner_after<'a>(
    message: &'a Bytes,
    method: &Method,
    resource: &Resource,
    paths: Option<&[&str]>,
) -> Result<After<'a>, Problem> {
    let Some(field) = &method.owner else { return Ok(After::default()) };
    let name = field::string_at(message, &field.numbers)?.unwrap_or_default();
    let moves = paths.is_some_and(|paths| is_written(paths, field, name));
    if name.is_empty() || (paths.is_some() && !moves) {
        return Ok(After::owned_by("", moves));
    }
    let wrong = |text: String| Problem::invalid_field(field.path.as_str(), Fault::Pattern, text);
    let owner = ResourceName::parse(name).map_err(|error| wrong(error.to_string()))?;
    if owner.organization() != resource.organization {
        return Err(wrong(format!("`{name}` is not in `{}`", resource.organization_name())));
    }
    match (owner.matches(GROUP), owner.matches(USER)) {
        (true, _) => Ok(After::owned_by(name, moves)),
        (_, true) => Ok(After::owned_by("", moves)),
        _ => Err(wrong(format!("`{name}` must have the form `{GROUP}`"))),
    }
}

/// Whether an update writes the owner: its mask names it, or has no paths and the owner is there.
fn is_written(paths: &[&str], owner: &Field, value: &str) -> bool {
    if paths.is_empty() {
        return !value.is_empty();
    }
    mask::touches(paths.iter().copied(), within(owner))
}

/// The path of a field within the resource of the request.
fn within(field: &Field) -> &str {
    field.path.split_once('.').map_or(field.path.as_str(), |(_, within)| within)
}
