//! Use cases: what happens between a decoded request and the tables.

pub(crate) mod actions;
pub(crate) mod approvals;
pub(crate) mod cache;
pub(crate) mod codec;
pub(crate) mod decide;
pub(crate) mod decisions;
pub(crate) mod directory;
pub(crate) mod facts;
pub(crate) mod metrics;
pub(crate) mod resources;
pub(crate) mod rules;
pub(crate) mod sources;
pub(crate) mod write;

use std::sync::Arc;

use pavior_auth::{Permit, SystemAuthority};
use pavior_core::clock::Clock;
use pavior_core::id::IdGen;
use pavior_core::page::PageTokens;
use pavior_store::Store;
use pavior_store::outbox::OutboxContext;

use crate::config::Config;
use crate::domain::schema::PolicySchema;
use crate::error::Error;
use cache::Compilations;
use decisions::DecisionLog;
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
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdGen>,
    pub(crate) tokens: PageTokens,
    pub(crate) outbox: OutboxContext,
    pub(crate) authority: SystemAuthority,
    pub(crate) schema: Arc<PolicySchema>,
    pub(crate) sources: Sources,
    pub(crate) directories: Directories,
    pub(crate) compilations: Compilations,
    pub(crate) decisions: DecisionLog,
    pub(crate) metrics: Metrics,
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl App {
    /// Checks that a permit is for this organization. Whether its action is the method's has been checked before.
    pub(crate) fn permitted(
        permit: &Permit,
        organization: &str,
        call: &write::Call,
        resource: &str,
    ) -> Result<(), Error> {
        if permit.organization() == organization {
            return Ok(());
        }
        let (caller, permitted) = (permit.caller(), permit.organization());
        tracing::warn!(
            caller,
            permitted,
            action = call.action,
            resource,
            "the permit is for another organization"
        );
        Err(Error::NotPermitted { action: call.action.to_owned(), resource: resource.to_owned() })
    }

    /// The service's own permit in one organization.
    pub(crate) fn system_permit(&self, organization: &str) -> Permit {
        Permit::for_system(&self.authority, organization)
    }
}
