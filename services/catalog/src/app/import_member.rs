//! What imported `Group` and `User` documents say: groups, users, and who belongs to which.

use std::collections::{BTreeMap, BTreeSet};

use pavior_core::Fault;
use pavior_core::audit::Affected;
use pavior_resource::{AuditEntry, Table, Work, unfit};

use super::import_document::{ImportCounts, Read, documents_invalid};
use super::membership::{MembershipChange, records};
use super::{App, db};
use crate::domain::backstage::{self, ImportedGroup, ImportedUser};
use crate::domain::group::parent_problem;
use crate::domain::membership::{MAX_GROUPS, MAX_MEMBERS, Source};
use crate::domain::{
    Fields as _, GroupFields, MembershipFields, OrganizationFields, Stored, UserFields, Violations,
    violation_path,
};
use crate::error::Error;
use crate::store::Side;

/// The documents about groups and users, by id, each with its place.
#[derive(Debug, Default)]
struct Described<'a> {
    groups: BTreeMap<&'a str, (&'a str, &'a ImportedGroup)>,
    users: BTreeMap<&'a str, (&'a str, &'a ImportedUser)>,
}

/// What importing one document changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Unchanged,
    Updated,
    Created,
}

/// The effect of each document about a group or user, by id.
type Effects = BTreeMap<String, Effect>;

/// Brings groups, users and memberships up to date. What no document mentions is not changed;
/// memberships of groups or users that do not exist are skipped.
pub(super) async fn import_members(
    work: &Work<'_, App>,
    read: &[Read],
    counts: &mut ImportCounts,
) -> Result<Vec<AuditEntry>, Error> {
    let mut described = Described::default();
    for Read { path, imported } in read {
        match imported {
            backstage::Imported::Entity(_) => {}
            backstage::Imported::Group(group) => {
                described.groups.insert(&group.id, (path, group));
            }
            backstage::Imported::User(user) => {
                described.users.insert(&user.id, (path, user));
            }
        }
    }
    if described.groups.is_empty() && described.users.is_empty() {
        return Ok(Vec::new());
    }
    let mut entries = Vec::new();
    let mut groups = groups(work, &described, &mut entries).await?;
    let mut users = users(work, &described, &mut entries).await?;
    let changes = memberships(work, &described).await?;
    for change in &changes {
        let Some(fields) = change.after.as_ref().or(change.before.as_ref()) else { continue };
        // A document counts as an update when only memberships changed.
        for effect in [groups.get_mut(&fields.fields.group), users.get_mut(&fields.id)].into_iter().flatten()
        {
            *effect = (*effect).max(Effect::Updated);
        }
    }
    let organization = format!("organizations/{}", work.permit.organization());
    let target = Affected::new(OrganizationFields::TYPE, organization);
    entries.extend(records(&changes, &target, "by an import"));
    for effect in groups.into_values().chain(users.into_values()) {
        match effect {
            Effect::Created => counts.created += 1,
            Effect::Updated => counts.updated += 1,
            Effect::Unchanged => counts.unchanged += 1,
        }
    }
    if !entries.is_empty() {
        db(work).bump_directory(work.permit).await?;
    }
    Ok(entries)
}

async fn groups(
    work: &Work<'_, App>,
    described: &Described<'_>,
    entries: &mut Vec<AuditEntry>,
) -> Result<Effects, Error> {
    let mut wanted: BTreeMap<&str, (&str, GroupFields)> =
        described.groups.iter().map(|(id, (path, group))| (*id, (*path, group.fields.clone()))).collect();
    // A group's parent may also be given by the parent's list of children.
    for (above, (_, group)) in &described.groups {
        for child in &group.children {
            if let Some((_, fields)) = wanted.get_mut(child.as_str()) {
                fields.parent.get_or_insert_with(|| (*above).to_owned());
            }
        }
    }
    let mut parents = db(work).group_parents(work.permit).await?;
    let known: BTreeSet<String> =
        parents.keys().cloned().chain(wanted.keys().map(|id| (*id).to_owned())).collect();
    for (id, (_, fields)) in &mut wanted {
        fields.parent = fields.parent.take().filter(|parent| known.contains(parent));
        parents.insert((*id).to_owned(), fields.parent.clone());
    }
    check_groups(work, &wanted, &parents)?;
    let wanted = wanted.into_iter().map(|(id, (_, fields))| (id, fields));
    save_all(work, wanted.collect(), entries).await
}

fn check_groups(
    work: &Work<'_, App>,
    wanted: &BTreeMap<&str, (&str, GroupFields)>,
    parents: &BTreeMap<String, Option<String>>,
) -> Result<(), Error> {
    let mut violations = Violations::new();
    for (id, (path, fields)) in wanted {
        if let Some(problem) = parent_problem(id, fields.parent.as_deref(), parents) {
            violations.add(violation_path(path, "spec.parent"), Fault::Conflict, problem);
        }
        for violation in unfit(work.permit.organization(), id, fields)? {
            // `parent_problem` has reported that a group is its own parent.
            if violation.path != "parent_group" {
                violations.add(violation_path(path, "metadata"), violation.fault, violation.message);
            }
        }
    }
    violations.into_result().map_err(documents_invalid)
}

async fn users(
    work: &Work<'_, App>,
    described: &Described<'_>,
    entries: &mut Vec<AuditEntry>,
) -> Result<Effects, Error> {
    let mut violations = Violations::new();
    for (id, (path, user)) in &described.users {
        for violation in unfit(work.permit.organization(), id, &user.fields)? {
            let path = violation_path(path, &format!("spec.profile.{}", in_profile(&violation.path)));
            violations.add(path, violation.fault, violation.message);
        }
    }
    violations.into_result().map_err(documents_invalid)?;
    let wanted = described.users.iter().map(|(id, (_, user))| (*id, user.fields.clone()));
    save_all(work, wanted.collect(), entries).await
}

/// Where a field of a user stands in a document.
fn in_profile(field: &str) -> &str {
    if field == "display_name" { "displayName" } else { field }
}

/// Writes those groups or users that are new or differ.
async fn save_all<T: Table>(
    work: &Work<'_, App>,
    wanted: BTreeMap<&str, T>,
    entries: &mut Vec<AuditEntry>,
) -> Result<Effects, Error> {
    let ids: Vec<String> = wanted.keys().map(|id| (*id).to_owned()).collect();
    let existing = work.rows().find_many::<T>(work.permit, "", &ids).await?;
    let existing: BTreeMap<&str, &Stored<T>> = existing.iter().map(|one| (one.id.as_str(), one)).collect();
    let mut effects = Effects::new();
    for (id, fields) in wanted {
        let effect = match existing.get(id) {
            None => {
                let stored = Stored::new(work.permit.organization(), id, work.uuid(), work.now, fields);
                work.rows().insert(work.permit, &stored).await?;
                entries.push(AuditEntry::of(None, Some(&stored)));
                Effect::Created
            }
            Some(before) if before.fields == fields => Effect::Unchanged,
            Some(before) => {
                let after = before.next(work.now, fields);
                work.rows().update(work.permit, &after).await?;
                entries.push(AuditEntry::of(Some(before), Some(&after)));
                Effect::Updated
            }
        };
        effects.insert(id.to_owned(), effect);
    }
    Ok(effects)
}

/// A group and a member, by id.
type Pair = (String, String);

/// Brings imported memberships up to date: those that a group's document declares, for the groups of this import, and those
/// that a user's document declares, for its users.
async fn memberships(
    work: &Work<'_, App>,
    described: &Described<'_>,
) -> Result<Vec<MembershipChange>, Error> {
    let organization = work.permit.organization();
    let user = |id: &str| UserFields::default().name(organization, id);
    let groups: Vec<String> = described.groups.keys().map(|id| (*id).to_owned()).collect();
    let members: Vec<String> = described.users.keys().map(|id| user(id)).collect();
    let before = db(work).memberships_among(work.permit, &groups, &members).await?;
    let before: BTreeMap<Pair, Stored<MembershipFields>> =
        before.into_iter().map(|one| ((one.fields.group.clone(), one.id.clone()), one)).collect();
    let declared = declared(work, described).await?;
    let pairs: BTreeSet<&Pair> = before.keys().chain(&declared.by_group).chain(&declared.by_member).collect();
    let mut changes = Vec::new();
    for pair in pairs {
        let (group, id) = pair;
        let of_group =
            described.groups.contains_key(group.as_str()).then(|| declared.by_group.contains(pair));
        let of_member = described.users.contains_key(id.as_str()).then(|| declared.by_member.contains(pair));
        let there = before.get(pair);
        let source = Source::imported(there.map(|one| one.fields.source), of_group, of_member);
        if source == there.map(|one| one.fields.source) {
            continue;
        }
        let fields = |source| MembershipFields { group: group.clone(), member: user(id), source };
        let after = source.map(|source| match there {
            Some(there) => there.next(work.now, fields(source)),
            None => Stored::new(organization, id, work.uuid(), work.now, fields(source)),
        });
        changes.push(MembershipChange { before: there.cloned(), after });
    }
    write(work, &changes).await?;
    check_limits(work, described, &changes).await?;
    Ok(changes)
}

/// The memberships that documents declare, of groups and users that exist.
#[derive(Debug, Default)]
struct Declared {
    by_group: BTreeSet<Pair>,
    by_member: BTreeSet<Pair>,
}

async fn declared(work: &Work<'_, App>, described: &Described<'_>) -> Result<Declared, Error> {
    let known: BTreeSet<String> = db(work).group_parents(work.permit).await?.into_keys().collect();
    let named: BTreeSet<&String> = described.groups.values().flat_map(|(_, group)| &group.members).collect();
    let named: Vec<String> = named.into_iter().cloned().collect();
    let users = work.rows().find_many::<UserFields>(work.permit, "", &named).await?;
    let users: BTreeSet<&str> = users.iter().map(|user| user.id.as_str()).collect();
    let mut declared = Declared::default();
    for (_, group) in described.groups.values() {
        let members = group.members.iter().filter(|member| users.contains(member.as_str()));
        declared.by_group.extend(members.map(|member| (group.id.clone(), member.clone())));
    }
    for (_, user) in described.users.values() {
        let groups = user.groups.iter().filter(|group| known.contains(*group));
        declared.by_member.extend(groups.map(|group| (group.clone(), user.id.clone())));
    }
    Ok(declared)
}

async fn write(work: &Work<'_, App>, changes: &[MembershipChange]) -> Result<(), Error> {
    let (mut gone, mut made) = (Vec::new(), Vec::new());
    for change in changes {
        match (&change.before, &change.after) {
            (Some(before), None) => gone.push(before.clone()),
            (None, Some(after)) => made.push(after.clone()),
            (Some(_), Some(after)) => work.rows().update(work.permit, after).await?,
            (None, None) => {}
        }
    }
    work.end_all(&gone).await?;
    Ok(db(work).insert_memberships(work.permit, &made).await?)
}

/// Checks the limits of groups per member and members per group. A violation is reported at a document that declares one
/// of the new memberships.
async fn check_limits(
    work: &Work<'_, App>,
    described: &Described<'_>,
    changes: &[MembershipChange],
) -> Result<(), Error> {
    let made = || {
        let made = changes.iter().filter(|change| change.before.is_none());
        made.filter_map(|change| change.after.as_ref())
    };
    let mut violations = Violations::new();
    for (side, most) in [(Side::Member, MAX_GROUPS), (Side::Group, MAX_MEMBERS)] {
        let made: BTreeMap<&str, &Stored<MembershipFields>> =
            made().map(|made| (side.of(&made.fields), made)).collect();
        let some: Vec<String> = made.keys().map(|one| (*one).to_owned()).collect();
        for one in db(work).with_more_than(work.permit, side, &some, most).await? {
            let Some(membership) = made.get(one.as_str()) else { continue };
            let path = document_path(described, membership, side);
            let message = match side {
                Side::Member => format!("`{one}` would belong to more than {most} groups"),
                Side::Group => format!("the group `{one}` would have more than {most} members"),
            };
            violations.add(path, Fault::TooMany, message);
        }
    }
    violations.into_result().map_err(documents_invalid)
}

/// The path at which a membership is declared, preferably in the document of `side`.
fn document_path(described: &Described<'_>, made: &Stored<MembershipFields>, side: Side) -> String {
    let MembershipFields { group, source, .. } = &made.fields;
    let (by_group, by_member) = match source {
        Source::Api => (false, false),
        Source::Import { group, member } => (*group, *member),
    };
    let of_user = described.users.get(made.id.as_str()).filter(|_| by_member);
    let of_user = of_user.map(|(path, _)| violation_path(path, "spec.memberOf"));
    let of_group = described.groups.get(group.as_str()).filter(|_| by_group);
    let of_group = of_group.map(|(path, _)| violation_path(path, "spec.members"));
    match side {
        Side::Member => of_user.or(of_group),
        Side::Group => of_group.or(of_user),
    }
    .unwrap_or_default()
}
