//! Revisions of policies: each text of a policy, which never changes.

use pavior_core::resource::Fields;
use serde_json::{Value as Json, json};

use super::policy::{PolicyType, policy_name};

/// The fields of a policy revision. Immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyRevisionFields {
    /// The id of the policy.
    pub policy: String,
    /// The type of the policy.
    pub kind: PolicyType,
    /// The Cedar text.
    pub source: String,
    /// SHA-256 of the text, `sha256:` and hexadecimal.
    pub digest: String,
    /// The resource name of the principal who wrote it.
    pub author: String,
}

/// The resource name of a revision of a policy.
pub fn policy_revision_name(organization: &str, policy: &str, revision: i64) -> String {
    format!("{}/revisions/{revision}", policy_name(organization, policy))
}

impl Fields for PolicyRevisionFields {
    const SINGULAR: &'static str = "policy revision";
    const TYPE: &'static str = "policy.pavior.dev/PolicyRevision";

    fn name(&self, organization: &str, id: &str) -> String {
        format!("{}/revisions/{id}", policy_name(organization, &self.policy))
    }

    /// Without the text: a revision is written in the same transaction as its policy, whose audit record has it.
    fn snapshot(&self) -> Json {
        json!({ "policy": self.policy, "digest": self.digest })
    }
}
