//! Revisions of policies.

use pavior_core::resource::Stored;
use pavior_resource::{Rules, Work};

use super::App;
use crate::domain::policy::PolicyFields;
use crate::domain::policy_revision::PolicyRevisionFields;
use crate::error::Error;
use crate::store;

impl Rules for PolicyRevisionFields {
    type Service = App;
}

/// Adds the current text of a policy as a revision, and deletes the oldest revisions beyond the limit.
pub(super) async fn insert(work: &Work<'_, App>, policy: &Stored<PolicyFields>) -> Result<(), Error> {
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
