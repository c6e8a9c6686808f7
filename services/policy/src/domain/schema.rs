//! The Cedar schema, generated from the actions of the API. See the README for policy authors.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

use cedar_policy::{Schema, Validator};

use super::action::{Action, Actions, prefix_groups};

/// The namespace of everything.
pub const NAMESPACE: &str = "Pavior";
/// The action group of everything that changes state.
pub const CHANGES: &str = "changes";
/// The action group of everything that only reads.
pub const READS: &str = "reads";

/// The part that does not depend on the actions.
const TYPES: &str = r#"
  entity Organization;
  entity Project in [Organization];
  entity Group in [Group];
  entity User, Service, ServiceAccount, Agent in [Group, Organization] = {
    "name": String,
    "email"?: String,
    "installation_operator": Bool,
    "on_behalf_of"?: String,
  };
  entity Resource in [Project, Organization] = {
    "name": String,
    "type": String,
    "exists": Bool,
    "organization": Organization,
    "project"?: Project,
    "owner"?: Group,
    "environment_class_id"?: String,
  } tags String;
  entity Parameters tags String;
  entity Labels tags String;
  type Context = {
    "stage": String,
    "approved": Bool,
    "environment_class_id"?: String,
    "template"?: String,
    "template_version"?: String,
    "parameters": Parameters,
    "labels": Labels,
    "create_count": Long,
    "update_count": Long,
    "replace_count": Long,
    "delete_count": Long,
    "resource_types": Set<String>,
    "new_owner"?: Group,
  };
"#;

/// The actions with their schema.
#[derive(Debug, Clone)]
pub struct PolicySchema {
    /// The actions.
    pub actions: Actions,
    /// The schema as Cedar text; part of a revision's digest.
    pub text: String,
    /// The validator over it.
    pub validator: Validator,
}

/// Why there is no schema: an action with a name that the generator cannot write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot make the policy schema: {0}")]
pub struct SchemaError(String);

/// The names of all attributes that principals, resources and contexts can have.
pub fn attributes() -> impl Iterator<Item = &'static str> {
    TYPES.split('"').skip(1).step_by(2)
}

/// The groups of an action, nearest first.
pub fn groups_of(action: &Action) -> Vec<String> {
    let mut groups = prefix_groups(&action.name);
    groups.push(if action.change { CHANGES } else { READS }.to_owned());
    groups
}

impl PolicySchema {
    /// Generates the schema.
    pub fn new(actions: Actions) -> Result<Self, SchemaError> {
        let text = cedar_text(&actions);
        let schema = Schema::from_str(&text).map_err(|error| SchemaError(error.to_string()))?;
        Ok(Self { actions, text, validator: Validator::new(schema) })
    }
}

fn cedar_text(actions: &Actions) -> String {
    // Each group is declared once, in its own parent group.
    let mut groups = BTreeMap::<String, Option<String>>::new();
    groups.insert(CHANGES.to_owned(), None);
    groups.insert(READS.to_owned(), None);
    for action in actions.iter() {
        let chain = prefix_groups(&action.name);
        for (at, group) in chain.iter().enumerate() {
            groups.insert(group.clone(), chain.get(at + 1).cloned());
        }
    }
    let mut text = format!("namespace {NAMESPACE} {{{TYPES}");
    for (group, parent) in &groups {
        let _ = match parent {
            Some(parent) => writeln!(text, "  action {group:?} in [{parent:?}];"),
            None => writeln!(text, "  action {group:?};"),
        };
    }
    for action in actions.iter() {
        let nearest = prefix_groups(&action.name).into_iter().next().unwrap_or_default();
        let effect = if action.change { CHANGES } else { READS };
        let _ = writeln!(
            text,
            "  action {:?} in [{nearest:?}, {effect:?}] appliesTo {{ principal: [User, Service, ServiceAccount, Agent], \
             resource: [Resource], context: Context }};",
            action.name
        );
    }
    text.push_str("}\n");
    text
}
