//! A decision as it is told and kept.

use pavior_core::resource::Fields;
use serde_json::{Value as Json, json};

use super::combine::{Effect, Reason};
use super::input::Stage;
use super::record::Requirement;

/// Most reasons of one kind that are kept.
const MAX_KEPT: usize = 50;

/// What was decided about one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecisionFields {
    /// Who asked, by resource name.
    pub principal: String,
    /// On whose behalf, by resource name.
    pub on_behalf_of: Option<String>,
    /// The action.
    pub action: String,
    /// What it was to be done to, by resource name.
    pub resource: String,
    /// At which point of a call.
    pub stage: Stage,
    /// What it says.
    pub effect: Effect,
    /// What determined it.
    pub reasons: Vec<Reason>,
    /// Hits that warn only.
    pub warnings: Vec<Reason>,
    /// Hits of policies that are tried out.
    pub shadow: Vec<Reason>,
    /// What is needed before it is a yes.
    pub requirements: Vec<Requirement>,
    /// With a plain denial: roles that would grant the action, by resource name.
    pub granting_roles: Vec<String>,
    /// Whether a policy could not be evaluated.
    pub policy_error: bool,
    /// SHA-256 over the canonical input, `sha256:` and hexadecimal.
    pub input_digest: String,
    /// The plan; empty when there was none.
    pub plan_digest: String,
    /// SHA-256 over the policies, roles and bindings that decided, `sha256:` and hexadecimal.
    pub policies_digest: String,
    /// The version of the directory of users and groups that decided.
    pub directory_version: String,
}

/// The resource name of a decision.
pub fn decision_name(organization: &str, id: &str) -> String {
    format!("organizations/{organization}/decisions/{id}")
}

impl Fields for DecisionFields {
    const SINGULAR: &'static str = "decision";
    const TYPE: &'static str = "policy.pavior.dev/Decision";

    fn name(&self, organization: &str, id: &str) -> String {
        decision_name(organization, id)
    }

    /// What rests on it is recorded, with its name.
    fn snapshot(&self) -> Json {
        json!({ "action": self.action, "resource": self.resource, "effect": self.effect.as_str() })
    }
}

impl DecisionFields {
    /// As much of it as is kept.
    #[must_use]
    pub(crate) fn kept_form(mut self) -> Self {
        for list in [&mut self.reasons, &mut self.warnings, &mut self.shadow] {
            list.truncate(MAX_KEPT);
        }
        self
    }
}
