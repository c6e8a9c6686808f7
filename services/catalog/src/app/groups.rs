//! Groups and users.

use pavior_core::Fault;
use pavior_resource::crud::LOOK_FOR;
use pavior_resource::{Error as ResourceError, Rules, Work};

use super::{App, db};
use crate::domain::organization::parent_problem;
use crate::domain::reference::EntityKey;
use crate::domain::{Fields as _, GroupFields, Stored, UserFields};
use crate::error::Error;

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
        let organization = &stored.organization;
        let mut names = owned(work, &stored.name(), organization).await?;
        let children = db(work).child_groups(work.permit, &stored.id, LOOK_FOR).await?;
        names.extend(children.iter().map(|id| stored.fields.name(organization, id)));
        let members = db(work).members(work.permit, &stored.id, LOOK_FOR).await?;
        names.extend(members.iter().map(|id| UserFields::default().name(organization, id)));
        Ok(names)
    }
}

impl Rules for UserFields {
    type Service = App;

    async fn admit(
        work: &Work<'_, App>,
        before: Option<&Stored<Self>>,
        after: &Stored<Self>,
    ) -> Result<(), Error> {
        if before.is_some_and(|before| before.fields.groups == after.fields.groups) {
            return Ok(());
        }
        let found = work.rows().find_many::<GroupFields>(work.permit, "", &after.fields.groups).await?;
        let missing = after.fields.groups.iter().enumerate();
        let missing: Vec<_> = missing
            .filter(|(_, id)| !found.iter().any(|group| group.id == **id))
            .map(|(i, id)| (format!("groups.{i}"), GroupFields::default().name(&after.organization, id)))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(ResourceError::missing::<Self>(missing).into()) }
    }

    async fn written(
        work: &Work<'_, App>,
        before: Option<&Stored<Self>>,
        after: Option<&Stored<Self>>,
    ) -> Result<(), Error> {
        if let Some(stored) = after.or(before) {
            let groups = after.map(|after| after.fields.groups.as_slice()).unwrap_or_default();
            db(work).set_memberships(work.permit, &stored.id, groups).await?;
        }
        Ok(db(work).bump_directory(work.permit).await?)
    }

    async fn dependents(work: &Work<'_, App>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        owned(work, &stored.name(), &stored.organization).await
    }
}

async fn owned(work: &Work<'_, App>, owner: &str, organization: &str) -> Result<Vec<String>, Error> {
    let entities = db(work).owned_entities(work.permit, owner, LOOK_FOR).await?;
    Ok(entities.iter().map(|entity: &EntityKey| entity.name(organization)).collect())
}
