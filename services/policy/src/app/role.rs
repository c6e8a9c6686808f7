//! Roles.

use pavior_core::resource::Stored;
use pavior_resource::{Rules, Work};

use super::App;
use crate::domain::role::RoleFields;
use crate::domain::role_binding::role_binding_name;
use crate::error::Error;
use crate::store;

impl Rules for RoleFields {
    type Service = App;

    async fn admit(
        work: &Work<'_, App>,
        before: Option<&Stored<Self>>,
        _after: &Stored<Self>,
    ) -> Result<(), Error> {
        match before {
            Some(_) => Ok(()),
            None => Ok(work.room_for::<Self>("roles", work.service.config.max_roles).await?),
        }
    }

    async fn written(
        work: &Work<'_, App>,
        _before: Option<&Stored<Self>>,
        _after: Option<&Stored<Self>>,
    ) -> Result<(), Error> {
        Ok(store::bump_revision(work.tx, work.permit).await?)
    }

    async fn dependents(work: &Work<'_, App>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        let ids = store::role_bindings_of(work.tx, work.permit, &stored.id).await?;
        Ok(ids.iter().map(|id| role_binding_name(&stored.organization, id)).collect())
    }
}
