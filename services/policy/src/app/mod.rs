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
    /// Checks that a permit is for this organization and action. The gateway names the action that it asked about;
    /// a service of the platform acts for itself and names none.
    pub(crate) fn permitted(
        permit: &Permit,
        organization: &str,
        call: &write::Call,
        resource: &str,
    ) -> Result<(), Error> {
        let action = permit.action();
        let named =
            action == call.action || (action.is_empty() && (permit.caller() != "gateway" || !call.changes));
        if permit.organization() == organization && named {
            return Ok(());
        }
        tracing::warn!(
            caller = permit.caller(),
            permitted = action,
            action = call.action,
            resource,
            "the permit does not fit the call"
        );
        Err(Error::NotPermitted { action: call.action.to_owned(), resource: resource.to_owned() })
    }

    /// The service's own permit in one organization.
    pub(crate) fn system_permit(&self, organization: &str) -> Permit {
        Permit::for_system(&self.authority, organization)
    }
}
