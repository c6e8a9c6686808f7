//! What is known of how writing goes, for health.

use crate::member::Undone;
use sea_orm::DbErr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Kept by whoever writes.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    now: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    busy_since: Option<Instant>,
    committed: Option<Instant>,
    /// The last failure, if nothing was committed since.
    failed: Option<Undone>,
}

impl Pulse {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment, so a panic leaves nothing half done.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A group begins.
    pub(crate) fn busy(&self) {
        self.state().busy_since = Some(Instant::now());
    }

    /// It ended.
    pub(crate) fn idle(&self) {
        self.state().busy_since = None;
    }

    /// A commit is durable.
    pub(crate) fn committed(&self) {
        let mut state = self.state();
        (state.committed, state.failed) = (Some(Instant::now()), None);
    }

    /// Something was undone.
    pub(crate) fn failed(&self, why: Undone) {
        let mut state = self.state();
        (state.committed, state.failed) = (None, Some(why));
    }

    /// The database's last error, if nothing was committed since.
    pub(crate) fn trouble(&self) -> Option<DbErr> {
        match &self.state().failed {
            Some(Undone::Database(error) | Undone::Own(error) | Undone::Unknown(error)) => {
                Some(error.clone())
            }
            _ => None,
        }
    }

    /// Whether a commit succeeded within `span`, and nothing failed since.
    pub(crate) fn committed_within(&self, span: Duration) -> bool {
        self.state().committed.is_some_and(|at| at.elapsed() <= span)
    }

    /// What is wrong, in words for an operator, when a write did not come through.
    pub(crate) fn plain(&self) -> String {
        let state = self.state();
        match (&state.failed, state.busy_since) {
            (Some(failed), _) => failed.plain(),
            (None, Some(since)) => format!("the writer has been busy for {} s", since.elapsed().as_secs()),
            (None, None) => "no write came through in time".to_owned(),
        }
    }
}
