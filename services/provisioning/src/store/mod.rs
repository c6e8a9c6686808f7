//! What is kept: the tables, and every transaction on them.

mod artifacts;
mod audit;
mod batch;
mod claim;
mod clock;
mod create;
mod declared;
mod effects;
pub mod entity;
mod finish;
mod journal;
mod list;
mod logs;
pub mod migration;
mod park;
mod plans;
mod progress;
mod read;
mod reap;
mod retention;
mod room;
mod rows;
mod take;
mod timers;
mod told;
mod verbs;
mod workloads;

use std::sync::Arc;

use pavior_core::clock::Clock;
use pavior_core::id::IdGen;
use pavior_store::outbox::{History, Limits, OutboxContext};
use pavior_store::{Store, StoreError};
use time::OffsetDateTime;

pub use audit::{Caller, Refusal, denied_event, planned_event, refused_event};
pub use claim::{
    Again, Claim, ClaimParams, Completed, Completion, Made, Purpose, RunResult, Sealed, StepError, StepRef,
};
pub use create::{Admission, NewEnvironment, NewOperation, NewProject, Ownership, Seen, Started};
pub use declared::Recorded;
pub use journal::Aggregate;
pub(crate) use journal::{step_body, untouched};
pub use list::{Listing, Page};
pub use logs::LogLine;
pub use park::unknown_unscoped;
pub use plans::{KeptPlan, NewPlan};
pub use progress::Waiting;
pub use read::OperationView;
pub use retention::{Retention, Swept};
pub use verbs::{Checked, TakeUp};
pub use workloads::{Endpoint, EnvironmentView};

/// The database of provisioning. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdGen>,
    pub(crate) outbox: Arc<OutboxContext>,
    steady: clock::Steady,
    /// Called inside of the transaction of a completed step, right before its commit. Tests let the worker die here.
    pub(crate) before_commit: Option<BeforeCommit>,
}

/// Answers whether to die.
#[derive(Clone)]
pub struct BeforeCommit(pub Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl std::fmt::Debug for BeforeCommit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BeforeCommit")
    }
}

/// Rows of one statement: both databases bound the number of its values.
pub(crate) const ROWS_AT_ONCE: usize = 200;

/// Role of this service in the outbox.
pub const SERVICE: &str = "provisioning";

impl Db {
    /// Over a migrated store.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdGen>,
        instance: &str,
        limits: Limits,
    ) -> Self {
        let mut outbox = OutboxContext::new(&store, SERVICE, instance, clock.clone());
        outbox.limits = limits;
        let outbox = Arc::new(outbox);
        let steady = clock::Steady::new(clock.as_ref());
        Self { store, clock, ids, outbox, steady, before_commit: None }
    }

    /// The store below, for the outbox relay and health.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What is known of the histories of this database and of the audit log.
    pub fn history(&self) -> &History {
        self.store.history()
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    pub(crate) fn now_micros(&self) -> i64 {
        pavior_store::micros(self.clock.now())
    }
}

/// A database error as the crate's own, for `?` behind `map_err`.
pub(crate) fn db(error: sea_orm::DbErr) -> crate::error::Error {
    crate::error::Error::Store(StoreError::from(error))
}
