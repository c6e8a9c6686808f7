//! Policies.

use pavior_auth::Permit;
use pavior_core::resource::Stored;
use pavior_resource::{ChangeContext, Done, Rows, Rules, Update, Work, crud, run};
use prost::Message;

use super::App;
use crate::domain::record::{PolicyFields, PolicyRevisionFields, policy_binding_name};
use crate::domain::source::PolicyType;
use crate::error::Error;
use crate::store;

impl Rules for PolicyRevisionFields {
    type Service = App;
}

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
        before: Option<&Stored<Self>>,
        after: Option<&Stored<Self>>,
    ) -> Result<(), Error> {
        match (before, after) {
            (Some(before), None) => store::delete_revisions_of(work.tx, work.permit, &before.id).await?,
            (_, Some(after)) if before.map(number_of) != Some(number_of(after)) => keep(work, after).await?,
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

/// Keeps a text that was just written, as a revision of its own.
async fn keep(work: &Work<'_, App>, policy: &Stored<PolicyFields>) -> Result<(), Error> {
    let PolicyFields { kind, source, digest, text_revision, .. } = &policy.fields;
    let fields = PolicyRevisionFields {
        policy: policy.id.clone(),
        kind: *kind,
        source: source.clone(),
        digest: digest.clone(),
        author: work.permit.principal().name.clone(),
    };
    let id = text_revision.to_string();
    let revision = Stored::new(&policy.organization, &id, work.uuid(), work.now, fields);
    work.rows().insert(work.permit, &revision).await?;
    let most = work.service.config.max_policy_revisions;
    Ok(store::trim_revisions_of(work.tx, work.permit, &policy.id, most).await?)
}

/// Puts the text of an earlier revision back.
async fn roll_back(work: &Work<'_, App>, rollback: &Rollback) -> Result<Done<Stored<PolicyFields>>, Error> {
    let Rollback { update, revision } = rollback;
    // That there is no such policy is said of the policy.
    work.get::<PolicyFields>("", &update.id, &update.name).await?;
    let name = format!("{}/revisions/{revision}", update.name);
    let PolicyRevisionFields { source, digest, .. } =
        work.get::<PolicyRevisionFields>(&update.id, revision, &name).await?.fields;
    let merge =
        |stored: &Stored<PolicyFields>| Ok(stored.fields.clone().with_source(source.clone(), digest.clone()));
    crud::update(work, update, merge).await
}

/// A policy, and the id of the revision whose text is to be put back.
#[derive(Debug, Clone)]
pub(crate) struct Rollback {
    pub(crate) update: Update,
    pub(crate) revision: String,
}

impl App {
    /// Puts the text of an earlier revision back.
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

    /// Checks a text that is about to be written, so that the transaction, in which nothing must take long, finds the
    /// result in memory. `kind` is that of a new policy; else it is read from the policy called `id`.
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
            // What is wrong with it is said once more, in the transaction.
            drop(self.sources.check(permit.organization(), kind, source).await);
        }
    }
}
