//! Memberships, and what takes them along when it goes.

use pavior_core::Fault;
use pavior_core::audit::Affected;
use pavior_core::principal::EVERYONE;
use pavior_resource::crud;
use pavior_resource::{AuditEntry, Create, Done, Error as ResourceError, Rules, Work};
use pavior_rpc::problem::{ErrorReason, Problem};

use super::{App, db};
use crate::domain::membership::{MAX_GROUPS, MAX_MEMBERS, id_of};
use crate::domain::{Fields as _, GroupFields, MembershipFields, Stored, UserFields};
use crate::error::Error;
use crate::json::{Json, JsonMap, json};
use crate::store::Side;

/// Most memberships that one audit record names.
const PER_RECORD: usize = 100;

impl Rules for MembershipFields {
    type Service = App;

    async fn admit(
        work: &Work<'_, App>,
        _before: Option<&Stored<Self>>,
        after: &Stored<Self>,
    ) -> Result<(), Error> {
        let MembershipFields { group, member, source: _ } = &after.fields;
        let name = GroupFields::default().name(&after.organization, group);
        if group == EVERYONE {
            let text = format!("everybody belongs to `{name}`: nobody joins it or leaves it");
            let problem = Problem::invalid_field("parent", Fault::Reserved, text);
            return Err(ResourceError::Problem(problem).into());
        }
        work.get::<GroupFields>("", group, &name).await?;
        if work.find::<UserFields>("", &after.id).await?.is_none() {
            return Err(ResourceError::missing::<Self>([("member".to_owned(), member.clone())]).into());
        }
        if db(work).memberships_of(work.permit, Side::Member, member).await? >= MAX_GROUPS {
            let message = format!("`{member}` belongs to as many groups as one may: {MAX_GROUPS}");
            return Err(exhausted(message, member, format!("at most {MAX_GROUPS} groups of one member")));
        }
        if db(work).memberships_of(work.permit, Side::Group, group).await? >= MAX_MEMBERS {
            let message = format!("`{name}` has as many members as a group may: {MAX_MEMBERS}");
            return Err(exhausted(message, &name, format!("at most {MAX_MEMBERS} members of one group")));
        }
        Ok(())
    }

    async fn written(
        work: &Work<'_, App>,
        _before: Option<&Stored<Self>>,
        _after: Option<&Stored<Self>>,
    ) -> Result<(), Error> {
        Ok(db(work).bump_directory(work.permit).await?)
    }
}

fn exhausted(message: String, subject: &str, limit: String) -> Error {
    let problem = Problem::resource_exhausted(ErrorReason::QuotaExceeded, message);
    ResourceError::Problem(problem.with_quota(subject, limit)).into()
}

/// Creates a membership. Its id is that of its member.
pub(crate) async fn create_membership(
    work: &Work<'_, App>,
    command: &Create<MembershipFields>,
) -> Result<Done<Stored<MembershipFields>>, Error> {
    let Create { id, fields } = command;
    let id = match id_of(&fields.member, work.permit.organization()) {
        Ok(own) if id.is_empty() => own,
        // A malformed member is reported by `check`, together with every other violation.
        _ => id.clone(),
    };
    crud::create(work, &Create { id, fields: fields.clone() }).await
}

/// Deletes all memberships of a group (by id) or a member (by resource name), because `of` goes. So many at a time as one
/// record names; the organization is locked, so none is added meanwhile.
pub(super) async fn end_all(
    work: &Work<'_, App>,
    of: Affected,
    side: Side,
    one: &str,
) -> Result<Vec<AuditEntry>, Error> {
    let why = format!("of `{}`, which was deleted", of.name);
    let mut entries = Vec::new();
    loop {
        let ended = db(work).first_memberships(work.permit, side, one, PER_RECORD).await?;
        if ended.is_empty() {
            return Ok(entries);
        }
        work.end_all(&ended).await?;
        let changes: Vec<MembershipChange> =
            ended.into_iter().map(|before| MembershipChange { before: Some(before), after: None }).collect();
        entries.extend(records(&changes, &of, &why));
    }
}

/// A membership that was made, changed or ended together with others.
#[derive(Debug)]
pub(super) struct MembershipChange {
    pub(super) before: Option<Stored<MembershipFields>>,
    pub(super) after: Option<Stored<MembershipFields>>,
}

impl MembershipChange {
    pub(super) fn name(&self) -> String {
        self.after.as_ref().or(self.before.as_ref()).map(Stored::name).unwrap_or_default()
    }
}

/// Audit records of many memberships that an act on `target` changed, each of which names a bounded number of them: what
/// each was, and what it is.
pub(super) fn records(changes: &[MembershipChange], target: &Affected, why: &str) -> Vec<AuditEntry> {
    let seen = |of: fn(&MembershipChange) -> Option<&Stored<MembershipFields>>, some: &[MembershipChange]| {
        let seen = some.iter().filter_map(of).map(|one| (one.name(), one.fields.snapshot()));
        let seen: JsonMap<String, Json> = seen.collect();
        (!seen.is_empty()).then(|| json!({ "memberships": seen }))
    };
    let entry = |some: &[MembershipChange]| AuditEntry {
        target: target.clone(),
        affected: some.iter().map(|one| Affected::new(MembershipFields::TYPE, one.name())).collect(),
        before: seen(|change| change.before.as_ref(), some),
        after: seen(|change| change.after.as_ref(), some),
        plan_digest: None,
        refused: None,
        summary: format!("changed {} memberships {why}", some.len()),
    };
    changes.chunks(PER_RECORD).map(entry).collect()
}
