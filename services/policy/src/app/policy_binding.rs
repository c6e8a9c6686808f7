//! Policy bindings.

use pavior_core::resource::Stored;
use pavior_resource::{Error as ResourceError, Rules, Work};

use super::App;
use crate::domain::record::{PolicyBindingFields, PolicyFields, policy_name};
use crate::error::Error;
use crate::store;

impl Rules for PolicyBindingFields {
    type Service = App;

    async fn admit(
        work: &Work<'_, App>,
        before: Option<&Stored<Self>>,
        after: &Stored<Self>,
    ) -> Result<(), Error> {
        if before.is_none() {
            work.room_for::<Self>("policy bindings", work.service.config.max_policy_bindings).await?;
        }
        let policy = &after.fields.policy;
        match work.find::<PolicyFields>("", policy).await? {
            Some(_) => Ok(()),
            None => {
                let name = policy_name(&after.organization, policy);
                Err(ResourceError::missing::<Self>([("policy".to_owned(), name)]).into())
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
