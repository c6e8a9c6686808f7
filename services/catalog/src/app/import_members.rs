//! What imported `Group` and `User` documents say to the directory.

use pavior_core::Fault;
use std::collections::{BTreeMap, BTreeSet};

use pavior_resource::{AuditEntry, Table, Work};

use super::import::{Read, documents_invalid};
use super::{App, db};
use crate::domain::backstage::Member;
use crate::domain::organization::parent_problem;
use crate::domain::{Fields as _, GroupFields, Stored, UserFields, Violations, violation_path};
use crate::error::Error;

/// Brings groups and users up to date. What a document does not speak of stays as it is, except that a `User`
/// document tells all groups of the user. Groups that nobody has described are left out.
pub(super) async fn import_members(work: &Work<'_, App>, read: &[Read]) -> Result<Vec<AuditEntry>, Error> {
    let described: Vec<(&str, &Member)> =
        read.iter().filter_map(|read| Some((read.path.as_str(), read.imported.member.as_ref()?))).collect();
    if described.is_empty() {
        return Ok(Vec::new());
    }
    let mut entries = groups(work, &described).await?;
    let known: BTreeSet<String> = db(work).group_parents(work.permit).await?.into_keys().collect();
    entries.extend(users(work, &described, &known).await?);
    if !entries.is_empty() {
        db(work).bump_directory(work.permit).await?;
    }
    Ok(entries)
}

async fn groups(work: &Work<'_, App>, described: &[(&str, &Member)]) -> Result<Vec<AuditEntry>, Error> {
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
    let mut parents = db(work).group_parents(work.permit).await?;
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
    let existing = work.rows().find_many::<GroupFields>(work.permit, "", &ids).await?;
    let existing: BTreeMap<String, _> = existing.into_iter().map(|one| (one.id.clone(), one)).collect();
    let mut entries = Vec::new();
    for (id, (_, fields)) in wanted {
        entries.extend(save(work, existing.get(&id), &id, fields).await?);
    }
    Ok(entries)
}

fn check_groups(
    work: &Work<'_, App>,
    wanted: &BTreeMap<String, (String, GroupFields)>,
    parents: &BTreeMap<String, Option<String>>,
) -> Result<(), Error> {
    let mut violations = Violations::new();
    for (id, (path, fields)) in wanted {
        if let Some(problem) = parent_problem(id, fields.parent.as_deref(), parents) {
            violations.add(violation_path(path, "spec.parent"), Fault::Conflict, problem);
        }
        for violation in fields.check(work.permit.organization(), id) {
            violations.add(violation_path(path, "metadata"), violation.fault, violation.message);
        }
    }
    violations.into_result().map_err(documents_invalid)
}

async fn users(
    work: &Work<'_, App>,
    described: &[(&str, &Member)],
    known: &BTreeSet<String>,
) -> Result<Vec<AuditEntry>, Error> {
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
    let existing = work.rows().find_many::<UserFields>(work.permit, "", &ids).await?;
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
            violations.add(
                violation_path(&path, &format!("spec.{}", violation.path)),
                violation.fault,
                violation.message,
            );
        }
        changes.push((id, fields));
    }
    violations.into_result().map_err(documents_invalid)?;
    let mut entries = Vec::new();
    for (id, fields) in changes {
        let before = existing.get(&id);
        let groups = fields.groups.clone();
        let event = save(work, before, &id, fields).await?;
        if event.is_some() && before.is_none_or(|before| before.fields.groups != groups) {
            db(work).set_memberships(work.permit, &id, &groups).await?;
        }
        entries.extend(event);
    }
    Ok(entries)
}

/// Writes a group or user that is new or differs.
async fn save<T: Table>(
    work: &Work<'_, App>,
    before: Option<&Stored<T>>,
    id: &str,
    fields: T,
) -> Result<Option<AuditEntry>, Error> {
    let Some(before) = before else {
        let stored = Stored::new(work.permit.organization(), id, work.uuid(), work.now, fields);
        work.rows().insert(work.permit, &stored).await?;
        return Ok(Some(AuditEntry::of(None, Some(&stored))));
    };
    if before.fields == fields {
        return Ok(None);
    }
    let after = before.next(work.now, fields);
    work.rows().update(work.permit, &after).await?;
    Ok(Some(AuditEntry::of(Some(before), Some(&after))))
}
