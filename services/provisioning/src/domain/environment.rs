//! An environment of a project.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::state::{Lifecycle, named};

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

impl Lifecycle for EnvironmentState {
    type Event = EnvironmentEvent;

    fn transition(event: EnvironmentEvent) -> (Self, &'static [Self]) {
        use EnvironmentEvent as E;
        match event {
            E::AskPeople => (Self::AwaitingApproval, &[Self::Active, Self::AwaitingApproval, Self::Stuck]),
            E::Create => (Self::Creating, &[Self::AwaitingApproval, Self::Creating, Self::Stuck]),
            E::Update => {
                (Self::Updating, &[Self::Active, Self::AwaitingApproval, Self::Updating, Self::Stuck])
            }
            E::Delete => {
                (Self::Deleting, &[Self::Active, Self::AwaitingApproval, Self::Deleting, Self::Stuck])
            }
            E::Stick => (Self::Stuck, Self::HELD),
            E::Settle => (Self::Active, Self::HELD),
        }
    }
}

impl EnvironmentState {
    /// States in which an operation holds it.
    const HELD: &'static [Self] =
        &[Self::AwaitingApproval, Self::Creating, Self::Updating, Self::Deleting, Self::Stuck];
}
