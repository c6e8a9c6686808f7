//! The lease on a step: renewed from the claim until what came of it is recorded, whatever its work waits for meanwhile.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::Engine;
use super::stop::Stop;
use crate::store::StepRef;

impl Engine {
    /// Renews the claim that was asked for at `since`. Returns when it is lost, and at the latest a moment before it ends:
    /// a renewal that the database does not answer in time is none.
    pub(crate) async fn hold(&self, reference: StepRef, since: Instant, stop: &Stop) {
        let lease = Duration::from_millis(self.config.lease_ms);
        let micros = super::micros(self.config.lease_ms);
        let (mut until, mut next) = (since + lease, since + lease / 3);
        loop {
            let renewal = async {
                sleep_until(next).await;
                (Instant::now(), self.db.heartbeat_unscoped(reference, micros).await)
            };
            // Before somebody else may have it, nothing of ours may still be at it.
            let Ok((asked, renewed)) = timeout_at(until - lease / 6, renewal).await else { return };
            match renewed {
                Ok((true, not_wanted)) => {
                    (until, next) = (asked + lease, asked + lease / 3);
                    stop.renewed(until);
                    if not_wanted {
                        stop.not_wanted();
                    }
                }
                Ok((false, _)) => return,
                Err(error) => {
                    tracing::warn!(%error, "a claim could not be renewed and will be tried again");
                    next = Instant::now() + lease / 12;
                }
            }
        }
    }
}
