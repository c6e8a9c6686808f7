//! Groups and users.

use pavior_core::Fault;
use pavior_resource::crud::LOOK_FOR;
use pavior_resource::{Error as ResourceError, Rules, Table, Work};

use super::{App, db};
use crate::domain::organization::parent_problem;
use crate::domain::reference::{EntityKey, GROUP, USER};
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
        let mut names = related(work, GROUP, stored).await?;
        let children = db(work).child_groups(work.permit, &stored.id, LOOK_FOR).await?;
        names.extend(children.iter().map(|id| stored.fields.name(&stored.organization, id)));
        Ok(names)
    }
}

impl Rules for UserFields {
    type Service = App;

    async fn written(
        work: &Work<'_, App>,
        _before: Option<&Stored<Self>>,
        _after: Option<&Stored<Self>>,
    ) -> Result<(), Error> {
        Ok(db(work).bump_directory(work.permit).await?)
    }

    async fn dependents(work: &Work<'_, App>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        related(work, USER, stored).await
    }
}

/// The first entities that a group or user owns, or that declare another relation to it.
async fn related<T: Table>(
    work: &Work<'_, App>,
    kind: &str,
    stored: &Stored<T>,
) -> Result<Vec<String>, Error> {
    let key = EntityKey::new(kind, stored.id.as_str());
    let entities = db(work).dependents(work.permit, &key, LOOK_FOR).await?;
    Ok(entities.iter().map(|entity| entity.name(&stored.organization)).collect())
}
