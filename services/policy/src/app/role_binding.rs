//! Role bindings.

use pavior_core::resource::Stored;
use pavior_resource::{Error as ResourceError, Rules, Work};

use super::App;
use crate::domain::role::{RoleFields, role_name};
use crate::domain::role_binding::RoleBindingFields;
use crate::error::Error;
use crate::store;

impl Rules for RoleBindingFields {
    type Service = App;

    async fn admit(
        work: &Work<'_, App>,
        before: Option<&Stored<Self>>,
        after: &Stored<Self>,
    ) -> Result<(), Error> {
        if before.is_none() {
            work.room_for::<Self>("role bindings", work.service.config.max_role_bindings).await?;
        }
        let role = &after.fields.role;
        match work.find::<RoleFields>("", role).await? {
            Some(_) => Ok(()),
            None => {
                let name = role_name(&after.organization, role);
                Err(ResourceError::missing::<Self>([("role".to_owned(), name)]).into())
            }
        }
    }

    async fn written(
        work: &Work<'_, App>,
        _before: Option<&Stored<Self>>,
        _after: Option<&Stored<Self>>,
    ) -> Result<(), Error> {
        Ok(store::bump_revision(work.tx, work.permit).await?)
    }
}
