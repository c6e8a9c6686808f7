//! A resource: something that a driver made.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::plan::{Action, Spec};
use super::state::{lifecycle, named};

/// A resource as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Its id.
    pub uid: Uuid,
    /// The organization's id.
    pub organization: String,
    /// Its project, by resource name.
    pub project: String,
    /// Its environment, by resource name; empty for the project's own.
    pub environment: String,
    /// Its resource name.
    pub name: String,
    /// Its type, by resource name.
    pub resource_type: String,
    /// The id of its type.
    pub type_id: String,
    /// The definition that made it, by resource name.
    pub resource_definition: String,
    /// The id of its driver.
    pub driver: String,
    /// The version of its driver.
    pub driver_version: String,
    /// The driver's name of it; empty as long as nothing is made.
    pub identity: String,
    /// Inputs of its last apply, secrets as references.
    pub inputs: Value,
    /// Outputs, secrets as references.
    pub outputs: Value,
    /// The driver's state of it.
    pub driver_state: Value,
    /// What its last apply was told.
    pub spec: Spec,
    /// Under which its inputs are sealed, when they hold secrets; else empty.
    pub sealed_inputs: String,
    /// Its state.
    pub state: ResourceState,
    /// How often it was applied.
    pub generation: i64,
    /// The resources that it was made after, by resource name.
    pub depends_on: Vec<String>,
    /// What it costs a month; empty when its definition does not say.
    pub monthly_cost: String,
    /// Whether its driver can undo it.
    pub undoable: bool,
    /// When it was accepted.
    pub create_time: OffsetDateTime,
    /// When it changed last.
    pub update_time: OffsetDateTime,
    /// How often it has changed.
    pub revision: i64,
}

named! {
    /// The lifecycle state of a resource.
    ResourceState {
        /// It is being made.
        Creating = "CREATING",
        /// It stands as it is recorded.
        Active = "ACTIVE",
        /// It is being changed.
        Updating = "UPDATING",
        /// It is being removed.
        Deleting = "DELETING",
        /// Its driver failed.
        Failed = "FAILED",
    }
}

named! {
    /// What can happen to a resource.
    ResourceEvent {
        /// An operation that changes it was accepted.
        Update = "UPDATE",
        /// An operation that removes it was accepted.
        Delete = "DELETE",
        /// Its step failed for good.
        Fail = "FAIL",
        /// Its driver made it as asked, or it stands as before.
        Settle = "SETTLE",
    }
}

impl ResourceEvent {
    /// What happens to a resource that is there when an operation takes it for an action.
    pub fn of(action: Action) -> Option<Self> {
        match action {
            Action::Update | Action::Replace => Some(Self::Update),
            Action::Delete => Some(Self::Delete),
            Action::Create | Action::Run | Action::Noop => None,
        }
    }
}

lifecycle! {
    ResourceState by ResourceEvent {
        Update: Active | Updating | Failed => Updating;
        Delete: Creating | Active | Updating | Deleting | Failed => Deleting;
        Fail: Creating | Updating | Deleting | Failed => Failed;
        Settle: Creating | Active | Updating | Deleting | Failed => Active;
    }
}
