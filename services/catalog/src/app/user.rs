//! Users.

use pavior_core::audit::Affected;
use pavior_resource::crud::{self, Delete};
use pavior_resource::{Done, Rules, Work};

use super::entity::related;
use super::membership::end_all;
use super::{App, db};
use crate::domain::reference::USER;
use crate::domain::{Fields as _, Stored, UserFields};
use crate::error::Error;
use crate::store::Side;

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

/// Deletes a user with its memberships.
pub(crate) async fn delete_user(
    work: &Work<'_, App>,
    command: &Delete,
) -> Result<Done<Option<Stored<UserFields>>>, Error> {
    let mut done = crud::delete::<UserFields>(work, command).await?;
    if let Some(user) = &done.value {
        let name = user.name();
        let of = Affected::new(UserFields::TYPE, &name);
        done.entries.extend(end_all(work, of, Side::Member, &name).await?);
    }
    Ok(done)
}
