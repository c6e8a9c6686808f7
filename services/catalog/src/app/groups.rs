//! Groups and users.

use super::Work;
use super::crud::{LOOK_FOR, Rules};
use crate::domain::organization::parent_problem;
use crate::domain::reference::EntityKey;
use crate::domain::{GroupFields, Resource as _, Stored, UserFields};
use crate::error::Error;

impl Rules for GroupFields {
    const FIELD: &'static str = "group";

    async fn admit(
        work: &Work<'_>,
        _before: Option<&Stored<Self>>,
        after: &Stored<Self>,
    ) -> Result<(), Error> {
        let Some(parent) = &after.fields.parent else { return Ok(()) };
        let parents = work.tx.group_parents(&work.permit).await?;
        if !parents.contains_key(parent) {
            let name = after.fields.name(&after.organization, parent);
            return Err(Error::ReferenceNotFound(vec![("group.parent_group".to_owned(), name)]));
        }
        match parent_problem(&after.id, Some(parent), &parents) {
            Some(problem) => Err(Error::field("group.parent_group", problem)),
            None => Ok(()),
        }
    }

    async fn written(
        work: &Work<'_>,
        _before: Option<&Stored<Self>>,
        _after: Option<&Stored<Self>>,
    ) -> Result<(), Error> {
        Ok(work.tx.bump_directory(&work.permit).await?)
    }

    async fn dependents(work: &Work<'_>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        let organization = &stored.organization;
        let mut names = owned(work, &stored.name(), organization).await?;
        let children = work.tx.child_groups(&work.permit, &stored.id, LOOK_FOR).await?;
        names.extend(children.iter().map(|id| stored.fields.name(organization, id)));
        let members = work.tx.members(&work.permit, &stored.id, LOOK_FOR).await?;
        names.extend(members.iter().map(|id| UserFields::default().name(organization, id)));
        Ok(names)
    }
}

impl Rules for UserFields {
    const FIELD: &'static str = "user";

    async fn complete(
        _work: &Work<'_>,
        _before: Option<&Stored<Self>>,
        after: &mut Stored<Self>,
    ) -> Result<(), Error> {
        after.fields.groups.sort();
        after.fields.groups.dedup();
        Ok(())
    }

    async fn admit(
        work: &Work<'_>,
        before: Option<&Stored<Self>>,
        after: &Stored<Self>,
    ) -> Result<(), Error> {
        if before.is_some_and(|before| before.fields.groups == after.fields.groups) {
            return Ok(());
        }
        let found = work.tx.find_many::<GroupFields>(&work.permit, "", &after.fields.groups).await?;
        let missing = after.fields.groups.iter().enumerate();
        let missing: Vec<_> = missing
            .filter(|(_, id)| !found.iter().any(|group| group.id == **id))
            .map(|(i, id)| (format!("user.groups.{i}"), GroupFields::default().name(&after.organization, id)))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(Error::ReferenceNotFound(missing)) }
    }

    async fn written(
        work: &Work<'_>,
        before: Option<&Stored<Self>>,
        after: Option<&Stored<Self>>,
    ) -> Result<(), Error> {
        if let Some(stored) = after.or(before) {
            let groups = after.map(|after| after.fields.groups.as_slice()).unwrap_or_default();
            work.tx.set_memberships(&work.permit, &stored.id, groups).await?;
        }
        Ok(work.tx.bump_directory(&work.permit).await?)
    }

    async fn dependents(work: &Work<'_>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        owned(work, &stored.name(), &stored.organization).await
    }
}

async fn owned(work: &Work<'_>, owner: &str, organization: &str) -> Result<Vec<String>, Error> {
    let entities = work.tx.owned_entities(&work.permit, owner, LOOK_FOR).await?;
    Ok(entities.iter().map(|entity: &EntityKey| entity.name(organization)).collect())
}
