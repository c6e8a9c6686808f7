//! Roles: named sets of actions.

use pavior_core::resource::Fields;
use serde_json::{Value as Json, json};

use super::action::Pattern;

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
