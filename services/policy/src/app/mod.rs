//! Use cases, between the decoded requests and the tables.

pub(crate) mod actions;
pub(crate) mod approval;
pub(crate) mod cache;
pub(crate) mod decision;
pub(crate) mod decision_log;
pub(crate) mod directory;
mod facts;
pub(crate) mod metrics;
pub(crate) mod policy;
mod policy_binding;
mod policy_revision;
mod role;
mod role_binding;
pub(crate) mod sources;

use std::sync::Arc;

use pavior_auth::{Permit, SystemAuthority};
use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
use pavior_resource::facts::facts_of_target;
use pavior_resource::{Kernel, Service};
use pavior_store::Tx;

use crate::config::Config;
use crate::domain::schema::PolicySchema;
use crate::error::Error;
use crate::store;
use cache::Compilations;
use decision_log::DecisionLog;
use directory::Directories;
use metrics::Metrics;
use sources::Sources;

/// Everything that the use cases work with. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) kernel: Kernel,
    pub(crate) authority: SystemAuthority,
    pub(crate) schema: Arc<PolicySchema>,
    pub(crate) sources: Sources,
    pub(crate) directories: Directories,
    pub(crate) compilations: Compilations,
    pub(crate) decision_log: DecisionLog,
    pub(crate) metrics: Metrics,
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl App {
    /// The service's own permit in one organization.
    pub(crate) fn system_permit(&self, organization: &str) -> Permit {
        Permit::for_system(&self.authority, organization)
    }
}

impl Service for App {
    type Error = Error;

    fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    async fn lock(tx: &Tx, permit: &Permit) -> Result<(), Error> {
        Ok(store::lock_organization(tx, permit).await?)
    }

    async fn facts(&self, tx: &Tx, permit: &Permit) -> Result<Option<ResourceFacts>, Error> {
        Ok(facts_of_target::<Self>(tx, permit).await?)
    }
}
