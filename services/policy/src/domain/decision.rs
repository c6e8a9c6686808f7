//! Decisions.

use pavior_core::resource::Fields;
use serde_json::{Value as Json, json};

use super::approval::Requirement;
use super::combine::{Effect, Reason};
use super::input::Stage;

/// Most reasons of one kind in a stored decision.
const MAX_REASONS: usize = 50;

/// The fields of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecisionFields {
    /// The resource name of the principal.
    pub principal: String,
    /// The resource name of the principal on whose behalf it acted.
    pub on_behalf_of: Option<String>,
    /// The action.
    pub action: String,
    /// The resource name of the action's target.
    pub resource: String,
    /// The point of the call at which it was made.
    pub stage: Stage,
    /// Its effect.
    pub effect: Effect,
    /// What determined the effect.
    pub reasons: Vec<Reason>,
    /// Matches that only warn.
    pub warnings: Vec<Reason>,
    /// Matches of policies in shadow mode.
    pub shadow: Vec<Reason>,
    /// The approvals that are required before the action is allowed.
    pub requirements: Vec<Requirement>,
    /// If no role grants the action: the resource names of roles that would.
    pub granting_roles: Vec<String>,
    /// Whether a policy could not be evaluated.
    pub policy_error: bool,
    /// SHA-256 over the canonical input, `sha256:` and hexadecimal.
    pub input_digest: String,
    /// The digest of the plan; empty without one.
    pub plan_digest: String,
    /// SHA-256 over the policies, roles and bindings that were evaluated, `sha256:` and hexadecimal.
    pub policies_digest: String,
    /// The version of the directory of users and groups that was used.
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

    /// Reasons are left out: audit records of changes name the decision.
    fn snapshot(&self) -> Json {
        json!({ "action": self.action, "resource": self.resource, "effect": self.effect.as_str() })
    }
}

impl DecisionFields {
    /// With as many reasons as are stored.
    #[must_use]
    pub(crate) fn truncated(mut self) -> Self {
        for list in [&mut self.reasons, &mut self.warnings, &mut self.shadow] {
            list.truncate(MAX_REASONS);
        }
        self
    }
}
