//! Groups.

use pavior_core::Fault;
use pavior_core::audit::Affected;
use pavior_core::principal::EVERYONE;
use pavior_resource::crud::{self, Delete, LOOK_FOR};
use pavior_resource::{Done, Error as ResourceError, Rules, Work};

use super::entity::related;
use super::membership::end_all;
use super::{App, db};
use crate::domain::group::parent_problem;
use crate::domain::reference::GROUP;
use crate::domain::{Fields as _, GroupFields, Stored};
use crate::error::Error;
use crate::store::Side;

impl Rules for GroupFields {
    type Service = App;

    async fn admit(
        work: &Work<'_, App>,
        _before: Option<&Stored<Self>>,
        after: &Stored<Self>,
    ) -> Result<(), Error> {
        let Some(parent) = &after.fields.parent else { return Ok(()) };
        let parents = db(work).group_parents(work.permit).await?;
        if !parents.contains_key(parent) {
            let name = after.fields.name(&after.organization, parent);
            return Err(ResourceError::missing::<Self>([("parent_group".to_owned(), name)]).into());
        }
        match parent_problem(&after.id, Some(parent), &parents) {
            Some(problem) => {
                Err(ResourceError::field::<Self>("parent_group", Fault::Conflict, problem).into())
            }
            None => Ok(()),
        }
    }

    async fn written(
        work: &Work<'_, App>,
        _before: Option<&Stored<Self>>,
        _after: Option<&Stored<Self>>,
    ) -> Result<(), Error> {
        Ok(db(work).bump_directory(work.permit).await?)
    }

    async fn dependents(work: &Work<'_, App>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        let mut names = related(work, GROUP, stored).await?;
        let children = db(work).child_groups(work.permit, &stored.id, LOOK_FOR).await?;
        names.extend(children.iter().map(|id| stored.fields.name(&stored.organization, id)));
        Ok(names)
    }
}

/// Deletes a group with its memberships.
pub(crate) async fn delete_group(
    work: &Work<'_, App>,
    command: &Delete,
) -> Result<Done<Option<Stored<GroupFields>>>, Error> {
    // The built-in group has no row, so `allow_missing` would report a deletion that did not happen.
    if command.id == EVERYONE {
        return Err(ResourceError::not_found::<GroupFields>(&command.name).into());
    }
    let mut done = crud::delete::<GroupFields>(work, command).await?;
    if let Some(group) = &done.value {
        let of = Affected::new(GroupFields::TYPE, group.name());
        done.entries.extend(end_all(work, of, Side::Group, &group.id).await?);
    }
    Ok(done)
}
