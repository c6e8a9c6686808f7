//! Policies.

use pavior_auth::Permit;
use pavior_core::resource::Stored;
use pavior_resource::{Rows, Rules, Work};

use super::App;
use crate::domain::record::{PolicyFields, policy_binding_name};
use crate::domain::source::SetKind;
use crate::error::Error;
use crate::store;

impl Rules for PolicyFields {
    type Service = App;

    async fn admit(
        work: &Work<'_, App>,
        before: Option<&Stored<Self>>,
        after: &Stored<Self>,
    ) -> Result<(), Error> {
        let app = work.service;
        if before.is_none() {
            work.room_for::<Self>("policies", app.config.max_policies).await?;
        }
        // It has been checked before the transaction, see `check_ahead`, and is known.
        let PolicyFields { kind, source, .. } = &after.fields;
        let checked = app.sources.check(&after.organization, *kind, source).await;
        checked.map(drop).map_err(|problems| Error::InvalidPolicy { problems })
    }

    async fn written(
        work: &Work<'_, App>,
        _before: Option<&Stored<Self>>,
        _after: Option<&Stored<Self>>,
    ) -> Result<(), Error> {
        Ok(store::bump_revision(work.tx, work.permit).await?)
    }

    async fn dependents(work: &Work<'_, App>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        let ids = store::policy_bindings_of(work.tx, work.permit, &stored.id).await?;
        Ok(ids.iter().map(|id| policy_binding_name(&stored.organization, id)).collect())
    }
}

impl App {
    /// Checks a text that is about to be written, so that the transaction, in which nothing must take long, finds the
    /// result in memory. `set` is that of a new policy; else it is read from the policy called `id`.
    pub(crate) async fn check_ahead(&self, permit: &Permit, set: Option<SetKind>, id: &str, source: &str) {
        let set = match set {
            Some(set) => Some(set),
            None => {
                let rows = Rows::new(self.kernel.store.read());
                let found = rows.find::<PolicyFields>(permit, "", id).await;
                found.ok().flatten().map(|stored| stored.fields.kind)
            }
        };
        if let Some(set) = set {
            // What is wrong with it is said once more, in the transaction.
            drop(self.sources.check(permit.organization(), set, source).await);
        }
    }
}
