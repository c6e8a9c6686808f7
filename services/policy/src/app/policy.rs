//! Policies.

use pavior_auth::Permit;
use pavior_core::resource::Stored;
use pavior_resource::{ChangeContext, Done, Rows, Rules, Update, Work, crud, run};
use prost::Message;

use super::{App, policy_revision};
use crate::domain::policy::{PolicyFields, PolicyType};
use crate::domain::policy_binding::policy_binding_name;
use crate::domain::policy_revision::PolicyRevisionFields;
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
        // The result is cached, because `check_ahead` ran before the transaction.
        let PolicyFields { kind, source, .. } = &after.fields;
        let checked = app.sources.check(&after.organization, *kind, source).await;
        checked.map(drop).map_err(|problems| Error::InvalidPolicy { problems })
    }

    async fn written(
        work: &Work<'_, App>,
        before: Option<&Stored<Self>>,
        after: Option<&Stored<Self>>,
    ) -> Result<(), Error> {
        match (before, after) {
            (Some(before), None) => store::delete_revisions_of(work.tx, work.permit, &before.id).await?,
            (_, Some(after)) if before.map(number_of) != Some(number_of(after)) => {
                policy_revision::insert(work, after).await?;
            }
            _ => {}
        }
        Ok(store::bump_revision(work.tx, work.permit).await?)
    }

    async fn dependents(work: &Work<'_, App>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        let ids = store::policy_bindings_of(work.tx, work.permit, &stored.id).await?;
        Ok(ids.iter().map(|id| policy_binding_name(&stored.organization, id)).collect())
    }
}

fn number_of(policy: &Stored<PolicyFields>) -> i64 {
    policy.fields.text_revision
}

/// Restores the text of an earlier revision, as a new revision.
async fn roll_back(work: &Work<'_, App>, rollback: &Rollback) -> Result<Done<Stored<PolicyFields>>, Error> {
    let Rollback { update, revision } = rollback;
    // Fails with the name of the policy, rather than of the revision, if the policy does not exist.
    work.get::<PolicyFields>("", &update.id, &update.name).await?;
    let name = format!("{}/revisions/{revision}", update.name);
    let PolicyRevisionFields { source, digest, .. } =
        work.get::<PolicyRevisionFields>(&update.id, revision, &name).await?.fields;
    let merge =
        |stored: &Stored<PolicyFields>| Ok(stored.fields.clone().with_source(source.clone(), digest.clone()));
    crud::update(work, update, merge).await
}

/// A policy, and the id of the revision whose text is to be restored.
#[derive(Debug, Clone)]
pub(crate) struct Rollback {
    pub(crate) update: Update,
    pub(crate) revision: String,
}

impl App {
    /// Restores the text of an earlier revision, as a new revision.
    pub(crate) async fn roll_back<M: Message + Default + 'static>(
        &self,
        context: &ChangeContext,
        encode: fn(&Stored<PolicyFields>) -> M,
        rollback: Rollback,
    ) -> Result<M, Error> {
        let (permit, policy) = (&context.permit, rollback.update.id.as_str());
        let rows = Rows::new(self.kernel.store.read());
        if let Some(found) = rows.find::<PolicyRevisionFields>(permit, policy, &rollback.revision).await? {
            // See `check_ahead`.
            let PolicyRevisionFields { kind, source, .. } = &found.fields;
            drop(self.sources.check(permit.organization(), *kind, source).await);
        }
        run(self, context, encode, rollback, |work, rollback| Box::pin(roll_back(work, rollback))).await
    }

    /// Checks a text before the transaction that writes it, so that the transaction finds the result in the cache and stays
    /// short. `kind` is the type of a new policy; otherwise it is read from the policy `id`.
    pub(crate) async fn check_ahead(
        &self,
        permit: &Permit,
        kind: Option<PolicyType>,
        id: &str,
        source: &str,
    ) {
        let kind = match kind {
            Some(kind) => Some(kind),
            None => {
                let rows = Rows::new(self.kernel.store.read());
                let found = rows.find::<PolicyFields>(permit, "", id).await;
                found.ok().flatten().map(|stored| stored.fields.kind)
            }
        };
        if let Some(kind) = kind {
            // Problems are reported in the transaction.
            drop(self.sources.check(permit.organization(), kind, source).await);
        }
    }
}
