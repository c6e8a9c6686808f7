//! An environment of a project.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::form::form;
use super::state::{lifecycle, named};

/// An environment as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Environment {
    /// Its id.
    pub uid: Uuid,
    /// Its project, by resource name.
    pub project: String,
    /// Its resource name.
    pub name: String,
    /// The name to show.
    pub display_name: String,
    /// Its class.
    pub class: String,
    /// The template version that it is made from, by resource name.
    pub template_version: String,
    /// Parameters that differ from the project's.
    pub parameters: Value,
    /// When it is taken down; never when absent.
    pub expire_time: Option<OffsetDateTime>,
    /// Its state.
    pub state: EnvironmentState,
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

/// Where a workload answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The resource that answers, by resource name.
    pub resource: String,
    /// Its URL.
    pub url: String,
}

form!(Endpoint { resource, url });

/// An environment with its workloads.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvironmentView {
    /// The environment.
    pub environment: Environment,
    /// Where its workloads answer, in order of their resources.
    pub endpoints: Vec<Endpoint>,
    /// The deployments that run in it, by resource name, in order of their workloads.
    pub deployments: Vec<String>,
}

named! {
    /// The lifecycle state of an environment.
    EnvironmentState {
        /// People are asked about the operation that holds it.
        AwaitingApproval = "AWAITING_APPROVAL",
        /// It is being made.
        Creating = "CREATING",
        /// Nothing works on it.
        Active = "ACTIVE",
        /// It is being changed.
        Updating = "UPDATING",
        /// It is being removed.
        Deleting = "DELETING",
        /// Its operation waits for an operator.
        Stuck = "STUCK",
    }
}

named! {
    /// What can happen to an environment.
    EnvironmentEvent {
        /// An operation that people are asked about holds it.
        AskPeople = "ASK_PEOPLE",
        /// The operation that makes it goes on.
        Create = "CREATE",
        /// The operation that changes it holds it.
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
    EnvironmentState by EnvironmentEvent {
        AskPeople: Active | AwaitingApproval | Stuck => AwaitingApproval;
        Create: AwaitingApproval | Creating | Stuck => Creating;
        Update: Active | AwaitingApproval | Updating | Stuck => Updating;
        Delete: Active | AwaitingApproval | Deleting | Stuck => Deleting;
        Stick: AwaitingApproval | Creating | Updating | Deleting | Stuck => Stuck;
        Settle: AwaitingApproval | Creating | Updating | Deleting | Stuck => Active;
    }
}
