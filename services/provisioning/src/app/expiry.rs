//! Environments whose time is over: taken down by the service itself, planned and checked by policy like any other request.

use std::time::Duration;

use pavior_core::digest;
use pavior_rpc::Violations;

use super::{App, ChangeContext, Due, Goal};
use crate::error::{Error, Result};
use crate::store::entity::timer;
use crate::store::timer::LONGEST;

const BATCH: u64 = 100;
/// How long an environment is left alone that is busy, or was given another end meanwhile.
const BUSY: Duration = Duration::from_secs(60);
/// When an operation that was begun should have been through.
const BEGUN: Duration = Duration::from_secs(10 * 60);

impl App {
    /// Takes down what is due.
    pub(crate) async fn expire_environments(&self) -> Result<()> {
        for timer in self.db.expired_unscoped(BATCH).await? {
            let pause = match self.expire(&timer).await {
                Ok(begun) => begun.then_some(BEGUN),
                Err(Error::Busy { .. } | Error::Stale { .. }) => Some(BUSY),
                Err(error) => {
                    let pause =
                        LONGEST.min(BUSY * 2_u32.saturating_pow(timer.attempt.clamp(0, 20).unsigned_abs()));
                    tracing::warn!(environment = timer.subject, %error, ?pause, "an expired environment still stands");
                    Some(pause)
                }
            };
            let pause = pause.map(|pause| i64::try_from(pause.as_micros()).unwrap_or(i64::MAX));
            self.db.postpone_timer_unscoped(&timer, pause).await?;
        }
        Ok(())
    }

    /// True when an operation was begun, false when there is nothing to take down.
    async fn expire(&self, timer: &timer::Model) -> Result<bool> {
        // Every look at the timer is a request of its own, whichever replica has it: two give one operation.
        let request_id = format!("{}/{}", timer.id, timer.attempt);
        let context = ChangeContext {
            permit: self.own_permit(&timer.organization),
            action: "provisioning.environments.delete",
            hash: digest::sha256(request_id.as_bytes()),
            request_id,
            method: "timer".to_owned(),
            goal: Goal::Apply,
            plan_digest: String::new(),
            due: Some(Due { timer: timer.id, why: "its time is over" }),
        };
        let answer = self.delete_environment(&context, &timer.subject, "", true, Violations::new()).await?;
        Ok(!matches!(answer, super::Answer::Nothing))
    }
}
