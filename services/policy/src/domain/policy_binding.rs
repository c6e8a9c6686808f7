//! Policy bindings: where a policy is in force, and how.

use pavior_core::resource::Fields;
use serde_json::{Value as Json, json};

/// The mode of enforcement, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Not evaluated.
    Off,
    /// Evaluated and recorded.
    Shadow,
    /// Every match is a warning.
    Warn,
    /// Every match has the effect that the rule declares.
    Enforce,
}

impl Mode {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "MODE_OFF",
            Self::Shadow => "MODE_SHADOW",
            Self::Warn => "MODE_WARN",
            Self::Enforce => "MODE_ENFORCE",
        }
    }
}

/// The fields of a policy binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyBindingFields {
    /// The id of the policy.
    pub policy: String,
    /// Ids of the projects where it holds; empty for all.
    pub projects: Vec<String>,
    /// Ids of the environment classes where it holds; empty for all.
    pub environment_class_ids: Vec<String>,
    /// The mode of enforcement.
    pub mode: Mode,
    /// The number of the revision that is in force; `None` for the latest.
    pub text_revision: Option<i64>,
}

/// The resource name of a policy binding.
pub fn policy_binding_name(organization: &str, id: &str) -> String {
    format!("organizations/{organization}/policyBindings/{id}")
}

impl Fields for PolicyBindingFields {
    const SINGULAR: &'static str = "policy binding";
    const TYPE: &'static str = "policy.pavior.dev/PolicyBinding";

    fn name(&self, organization: &str, id: &str) -> String {
        policy_binding_name(organization, id)
    }

    fn snapshot(&self) -> Json {
        let Self { policy, projects, environment_class_ids, mode, text_revision } = self;
        json!({
            "policy": policy,
            "projects": projects,
            "environmentClassIds": environment_class_ids,
            "mode": mode.name(),
            "revisionId": text_revision.map(|revision| revision.to_string()),
        })
    }
}
