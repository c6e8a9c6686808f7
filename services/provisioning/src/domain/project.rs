//! A project.

use std::collections::BTreeMap;

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::state::{lifecycle, named};

/// A project as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Its id.
    pub uid: Uuid,
    /// Its resource name.
    pub name: String,
    /// The name to show.
    pub display_name: String,
    /// The group that owns it, by resource name.
    pub owner: String,
    /// The template version that it is made from, by resource name.
    pub template_version: String,
    /// Its parameters.
    pub parameters: Value,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its state.
    pub state: ProjectState,
    /// The operation that holds it, by resource name; empty for none.
    pub operation: String,
    /// Who asked for it, by resource name.
    pub creator: String,
    /// When it was accepted.
    pub create_time: OffsetDateTime,
    /// When it changed last.
    pub update_time: OffsetDateTime,
    /// How often it has changed.
    pub revision: i64,
}

named! {
    /// The lifecycle state of a project.
    ProjectState {
        /// Its first operation is under way.
        Creating = "CREATING",
        /// It can be worked in.
        Active = "ACTIVE",
        /// It is being removed.
        Deleting = "DELETING",
        /// What it has itself is being mended.
        Updating = "UPDATING",
        /// Its operation waits for an operator.
        Stuck = "STUCK",
    }
}

named! {
    /// What can happen to a project.
    ProjectEvent {
        /// The operation that makes it goes on.
        Create = "CREATE",
        /// The operation that mends it holds it.
        Update = "UPDATE",
        /// The operation that removes it holds it.
        Delete = "DELETE",
        /// The operation that holds it is stuck.
        Stick = "STICK",
        /// The operation that holds it has ended, and it stands.
        Settle = "SETTLE",
    }
}

lifecycle! {
    ProjectState by ProjectEvent {
        Create: Creating | Stuck => Creating;
        Update: Active | Updating | Stuck => Updating;
        Delete: Active | Deleting | Stuck => Deleting;
        Stick: Creating | Updating | Deleting | Stuck => Stuck;
        Settle: Creating | Updating | Deleting | Stuck => Active;
    }
}
