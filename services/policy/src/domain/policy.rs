//! Policies: a Cedar text with its type.

use pavior_core::resource::Fields;
use serde_json::{Value as Json, json};

/// The type of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyType {
    /// Decides who may do what.
    Access,
    /// Restricts what may be made, whoever asks.
    Guardrail,
}

impl PolicyType {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "POLICY_TYPE_ACCESS",
            Self::Guardrail => "POLICY_TYPE_GUARDRAIL",
        }
    }
}

/// The fields of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyFields {
    /// The name to show.
    pub display_name: String,
    /// What the policy is for.
    pub description: String,
    /// Its type.
    pub kind: PolicyType,
    /// The Cedar text.
    pub source: String,
    /// SHA-256 of the text, `sha256:` and hexadecimal.
    pub digest: String,
    /// The number of the revision that holds the text, from 1.
    pub text_revision: i64,
}

impl PolicyFields {
    /// With a new text. A text that differs is the next revision.
    #[must_use]
    pub(crate) fn with_source(self, source: String, digest: String) -> Self {
        let text_revision = self.text_revision + i64::from(source != self.source);
        Self { source, digest, text_revision, ..self }
    }
}

/// The resource name of a policy.
pub fn policy_name(organization: &str, id: &str) -> String {
    format!("organizations/{organization}/policies/{id}")
}

impl Fields for PolicyFields {
    const SINGULAR: &'static str = "policy";
    const TYPE: &'static str = "policy.pavior.dev/Policy";

    fn name(&self, organization: &str, id: &str) -> String {
        policy_name(organization, id)
    }

    fn snapshot(&self) -> Json {
        let Self { display_name, description, kind, source, digest, text_revision } = self;
        json!({
            "displayName": display_name,
            "description": description,
            "policyType": kind.name(),
            "source": source,
            "digest": digest,
            "revisionId": text_revision.to_string(),
        })
    }
}
