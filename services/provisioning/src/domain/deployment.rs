//! A deployment: an artifact put into an environment.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::state::{lifecycle, named};

/// A deployment as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Its id.
    pub uid: Uuid,
    /// The workload that runs it, by resource name.
    pub resource: String,
    /// Its resource name.
    pub name: String,
    /// Its state.
    pub state: DeploymentState,
    /// The run that made the artifact, by resource name; empty as long as it is to come.
    pub run: String,
    /// The commit that the artifact was made of.
    pub commit: String,
    /// The value of `artifact` in expressions.
    pub artifact: Value,
    /// Where it answers; empty as long as it does not.
    pub url: String,
    /// The deployment that the artifact was taken from, by resource name; empty for none.
    pub source_deployment: String,
    /// Its operation, by resource name.
    pub operation: String,
    /// Who asked for it, by resource name.
    pub creator: String,
    /// When it was accepted.
    pub create_time: OffsetDateTime,
    /// When it changed last.
    pub update_time: OffsetDateTime,
}

named! {
    /// The lifecycle state of a deployment.
    DeploymentState {
        /// Its operation is under way.
        Pending = "PENDING",
        /// It runs.
        Active = "ACTIVE",
        /// Another one runs in its place, or its workload is gone.
        Superseded = "SUPERSEDED",
        /// It never came to run.
        Failed = "FAILED",
    }
}

named! {
    /// What can happen to a deployment.
    DeploymentEvent {
        /// Its operation succeeded.
        Activate = "ACTIVATE",
        /// Another one takes its place, or its workload is removed.
        Supersede = "SUPERSEDE",
        /// Its operation was undone.
        Fail = "FAIL",
    }
}

lifecycle! {
    DeploymentState by DeploymentEvent {
        Activate: Pending => Active;
        Supersede: Active => Superseded;
        Fail: Pending => Failed;
    }
}

impl DeploymentState {
    /// Whether it runs or has run.
    pub fn has_run(self) -> bool {
        matches!(self, Self::Active | Self::Superseded)
    }
}
