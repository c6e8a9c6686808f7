//! How one call of a driver is told to stop.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::Purpose;

/// Tells one call to stop, and until when its claim holds. Knows what the call is for: whoever cancels an operation wants it undone, so the wish
/// reaches calls that do something, and never one that undoes or looks. Time runs out for all of them.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    purpose: Purpose,
    token: CancellationToken,
    lost: CancellationToken,
    until: Arc<Mutex<Instant>>,
}

impl Stop {
    /// For a claim that holds until then, unless it is renewed.
    pub(crate) fn new(purpose: Purpose, until: Instant) -> Self {
        let until = Arc::new(Mutex::new(until));
        Self { purpose, token: CancellationToken::new(), lost: CancellationToken::new(), until }
    }

    /// The claim was renewed.
    pub(crate) fn renewed(&self, until: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// For how long the claim still holds.
    pub(crate) fn left(&self) -> Duration {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.saturating_duration_since(Instant::now())
    }

    /// Somebody does not want the operation any more.
    pub(crate) fn not_wanted(&self) {
        if self.purpose == Purpose::Do {
            self.token.cancel();
        }
    }

    /// The call has had its time, or is over.
    pub(crate) fn time_is_up(&self) {
        self.token.cancel();
    }

    /// The claim is lost, or will be before it can be renewed: nothing of ours may still be at it.
    pub(crate) fn claim_lost(&self) {
        self.lost.cancel();
    }

    /// Returns once the claim is lost.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// What the driver listens to.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_reaches_only_what_does_something() {
        for (purpose, stopped) in [(Purpose::Do, true), (Purpose::Observe, false), (Purpose::Undo, false)] {
            let stop = Stop::new(purpose, Instant::now());
            stop.not_wanted();
            assert_eq!(stop.token().is_cancelled(), stopped, "{purpose:?}");
            stop.time_is_up();
            assert!(stop.token().is_cancelled());
        }
    }
}
