//! Roles: named sets of actions.

use pavior_core::Fault;
use pavior_core::resource::{Fields, MAX_DISPLAY_NAME, Violations, line, paragraph};
use serde_json::{Value as Json, json};

use super::action::Pattern;
use super::limits::{MAX_DESCRIPTION, at_most};

/// Most actions of a role.
const MAX_ACTIONS: usize = 200;

/// The fields of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleFields {
    /// The name to show.
    pub display_name: String,
    /// What the role is for.
    pub description: String,
    /// The actions that it grants.
    pub actions: Vec<Pattern>,
}

/// The resource name of a role.
pub fn role_name(organization: &str, id: &str) -> String {
    format!("organizations/{organization}/roles/{id}")
}

impl Fields for RoleFields {
    const SINGULAR: &'static str = "role";
    const TYPE: &'static str = "policy.pavior.dev/Role";

    fn name(&self, organization: &str, id: &str) -> String {
        role_name(organization, id)
    }

    fn check(&self, _organization: &str, _id: &str) -> Violations {
        let mut violations = Violations::new();
        line(&mut violations, "display_name", &self.display_name, MAX_DISPLAY_NAME);
        paragraph(&mut violations, "description", &self.description, MAX_DESCRIPTION);
        if self.actions.is_empty() {
            violations.add("actions", Fault::Required, "must name at least one action");
        }
        at_most(&mut violations, "actions", &self.actions, MAX_ACTIONS);
        violations
    }

    fn snapshot(&self) -> Json {
        let Self { display_name, description, actions } = self;
        let actions: Vec<String> = actions.iter().map(ToString::to_string).collect();
        json!({ "displayName": display_name, "description": description, "actions": actions })
    }
}

/// A role as the compilation of an organization holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its id.
    pub id: String,
    /// The actions that it grants.
    pub actions: Vec<Pattern>,
}

impl Role {
    /// Whether it grants the action.
    pub fn grants(&self, action: &str) -> bool {
        self.actions.iter().any(|pattern| pattern.matches(action))
    }
}
