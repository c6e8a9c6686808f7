//! Policy bindings.

use pavior_core::resource::Stored;
use pavior_resource::{Error as ResourceError, Rules, Work};

use super::App;
use crate::domain::policy::{PolicyFields, policy_name};
use crate::domain::policy_binding::PolicyBindingFields;
use crate::domain::policy_revision::{PolicyRevisionFields, policy_revision_name};
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
        let (organization, policy) = (&after.organization, &after.fields.policy);
        let missing = |field: &str, name: String| ResourceError::missing::<Self>([(field.to_owned(), name)]);
        if work.find::<PolicyFields>("", policy).await?.is_none() {
            return Err(missing("policy", policy_name(organization, policy)).into());
        }
        let Some(revision) = after.fields.text_revision else { return Ok(()) };
        match work.find::<PolicyRevisionFields>(policy, &revision.to_string()).await? {
            Some(_) => Ok(()),
            None => Err(missing("revision_id", policy_revision_name(organization, policy, revision)).into()),
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
