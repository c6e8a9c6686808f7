//! What imported `Group` and `User` documents say to the directory.

use std::collections::{BTreeMap, BTreeSet};

use super::crud::event;
use super::import::{Read, documents_invalid};
use super::{Event, Work};
use crate::domain::backstage::Member;
use crate::domain::organization::parent_problem;
use crate::domain::{GroupFields, Resource as _, Stored, UserFields, Violations, violation_path};
use crate::error::Error;

/// Brings groups and users up to date. What a document does not speak of stays as it is, except that a `User`
/// document tells all groups of the user. Groups that nobody has described are left out.
pub(super) async fn import_members(work: &Work<'_>, read: &[Read]) -> Result<Vec<Event>, Error> {
    let described: Vec<(&str, &Member)> =
        read.iter().filter_map(|read| Some((read.path.as_str(), read.imported.member.as_ref()?))).collect();
    if described.is_empty() {
        return Ok(Vec::new());
    }
    let mut events = groups(work, &described).await?;
    let known: BTreeSet<String> = work.tx.group_parents(&work.permit).await?.into_keys().collect();
    events.extend(users(work, &described, &known).await?);
    if !events.is_empty() {
        work.tx.bump_directory(&work.permit).await?;
    }
    Ok(events)
}

async fn groups(work: &Work<'_>, described: &[(&str, &Member)]) -> Result<Vec<Event>, Error> {
    let mut wanted: BTreeMap<String, (String, GroupFields)> = BTreeMap::new();
    for (path, member) in described {
        if let Member::Group { id, display_name, description, parent, children: _, members: _ } = member {
            let fields = GroupFields {
                display_name: display_name.clone(),
                description: description.clone(),
                parent: parent.clone(),
            };
            wanted.insert(id.clone(), ((*path).to_owned(), fields));
        }
    }
    // A parent may be told from above, too.
    for (_, member) in described {
        if let Member::Group { id, children, .. } = member {
            for child in children {
                if let Some((_, fields)) = wanted.get_mut(child)
                    && fields.parent.is_none()
                {
                    fields.parent = Some(id.clone());
                }
            }
        }
    }
    let mut parents = work.tx.group_parents(&work.permit).await?;
    parents.extend(
        wanted
            .keys()
            .map(|id| (id.clone(), None))
            .filter(|(id, _)| !parents.contains_key(id))
            .collect::<Vec<_>>(),
    );
    let known: BTreeSet<String> = parents.keys().cloned().collect();
    for (_, fields) in wanted.values_mut() {
        fields.parent = fields.parent.take().filter(|parent| known.contains(parent));
    }
    parents.extend(wanted.iter().map(|(id, (_, fields))| (id.clone(), fields.parent.clone())));
    check_groups(work, &wanted, &parents)?;
    let ids: Vec<String> = wanted.keys().cloned().collect();
    let existing = work.tx.find_many::<GroupFields>(&work.permit, "", &ids).await?;
    let existing: BTreeMap<String, _> = existing.into_iter().map(|one| (one.id.clone(), one)).collect();
    let mut events = Vec::new();
    for (id, (_, fields)) in wanted {
        events.extend(save(work, existing.get(&id), &id, fields).await?);
    }
    Ok(events)
}

fn check_groups(
    work: &Work<'_>,
    wanted: &BTreeMap<String, (String, GroupFields)>,
    parents: &BTreeMap<String, Option<String>>,
) -> Result<(), Error> {
    let mut violations = Violations::new();
    for (id, (path, fields)) in wanted {
        if let Some(problem) = parent_problem(id, fields.parent.as_deref(), parents) {
            violations.add(violation_path(path, "spec.parent"), problem);
        }
        for violation in fields.check(work.permit.organization(), id) {
            violations.add(violation_path(path, "metadata"), violation.message);
        }
    }
    violations.into_result().map_err(documents_invalid)
}

async fn users(
    work: &Work<'_>,
    described: &[(&str, &Member)],
    known: &BTreeSet<String>,
) -> Result<Vec<Event>, Error> {
    let mut wanted: BTreeMap<String, (String, Option<UserFields>, BTreeSet<String>)> = BTreeMap::new();
    for (path, member) in described {
        match member {
            Member::User { id, display_name, email, groups } => {
                let entry = wanted.entry(id.clone()).or_default();
                entry.0 = (*path).to_owned();
                entry.1 = Some(UserFields {
                    display_name: display_name.clone(),
                    email: email.clone(),
                    groups: Vec::new(),
                });
                entry.2.extend(groups.iter().filter(|group| known.contains(*group)).cloned());
            }
            Member::Group { id, members, .. } => {
                for user in members {
                    wanted.entry(user.clone()).or_default().2.insert(id.clone());
                }
            }
        }
    }
    let ids: Vec<String> = wanted.keys().cloned().collect();
    let existing = work.tx.find_many::<UserFields>(&work.permit, "", &ids).await?;
    let existing: BTreeMap<String, _> = existing.into_iter().map(|one| (one.id.clone(), one)).collect();
    let mut violations = Violations::new();
    let mut changes = Vec::new();
    for (id, (path, fields, mut groups)) in wanted {
        let before = existing.get(&id);
        let mut fields = match (fields, before) {
            (Some(fields), _) => fields,
            // A member whom no document describes keeps the other groups, too.
            (None, Some(before)) => {
                groups.extend(before.fields.groups.iter().cloned());
                before.fields.clone()
            }
            (None, None) => continue,
        };
        fields.groups = groups.into_iter().collect();
        for violation in fields.check(work.permit.organization(), &id) {
            violations.add(violation_path(&path, &format!("spec.{}", violation.path)), violation.message);
        }
        changes.push((id, fields));
    }
    violations.into_result().map_err(documents_invalid)?;
    let mut events = Vec::new();
    for (id, fields) in changes {
        let before = existing.get(&id);
        let groups = fields.groups.clone();
        let event = save(work, before, &id, fields).await?;
        if event.is_some() && before.is_none_or(|before| before.fields.groups != groups) {
            work.tx.set_memberships(&work.permit, &id, &groups).await?;
        }
        events.extend(event);
    }
    Ok(events)
}

/// Writes a group or user that is new or differs.
async fn save<T: crate::store::Table>(
    work: &Work<'_>,
    before: Option<&Stored<T>>,
    id: &str,
    fields: T,
) -> Result<Option<Event>, Error> {
    let Some(before) = before else {
        let stored = Stored::new(work.permit.organization(), id, work.ids.uuid(), work.now, fields);
        work.tx.insert(&work.permit, &stored).await?;
        return Ok(Some(event(None, Some(&stored))));
    };
    if before.fields == fields {
        return Ok(None);
    }
    let after = before.next(work.now, fields);
    work.tx.update(&work.permit, &after).await?;
    Ok(Some(event(Some(before), Some(&after))))
}
