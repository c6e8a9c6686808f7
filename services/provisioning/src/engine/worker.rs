//! The loop that takes steps: woken at once by whoever made work, polling as the truth.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Engine, FaultPoint};
use crate::error::{Error, Result};
use crate::store::Claim;

/// How long calls may go on after shutdown was asked for, before their claims are left to recovery.
const DRAIN: Duration = Duration::from_secs(5);

impl Engine {
    /// Works until cancelled. Calls that are under way then get a moment to end; what does not is recovered later.
    pub async fn run(&self, cancel: CancellationToken) {
        self.recover_own().await;
        self.inner.recovered.cancel();
        let poll = Duration::from_millis(self.inner.config.poll_ms.max(1));
        let mut recovered = tokio::time::Instant::now();
        while !cancel.is_cancelled() && !self.is_dead() {
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "looking for work failed and will be repeated");
            }
            if recovered.elapsed() >= poll {
                self.recover().await;
                recovered = tokio::time::Instant::now();
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = self.inner.dead.cancelled() => break,
                () = self.inner.wake.notified() => {}
                () = tokio::time::sleep(poll) => {}
            }
        }
        self.inner.tasks.close();
        if !self.is_dead() && tokio::time::timeout(DRAIN, self.inner.tasks.wait()).await.is_err() {
            tracing::info!("calls are still under way; they are looked after at the next start");
        }
        self.inner.dead.cancel();
        self.inner.tasks.wait().await;
    }

    /// Takes what can be taken now.
    pub(crate) async fn round(&self) -> Result<()> {
        loop {
            let free = self.inner.slots.available_permits();
            if free == 0 {
                return Ok(());
            }
            let config = &self.inner.config;
            let per_organization = i64::try_from(config.max_running_per_organization).unwrap_or(i64::MAX);
            let found = self
                .inner
                .db
                .candidates_unscoped(free as u64, per_organization, &self.inner.breakers.ids())
                .await?;
            let mut taken = 0;
            for operation in found {
                let room = self.inner.slots.available_permits();
                if room == 0 || self.dies(FaultPoint::BeforeIntent, "") || self.is_dead() {
                    return Ok(());
                }
                let claims = match self.inner.db.claim_unscoped(operation, &self.claim_params(room)).await {
                    Ok(claims) => claims,
                    // Another worker was faster.
                    Err(Error::Fenced { .. }) => continue,
                    Err(error) => return Err(error),
                };
                taken += claims.len();
                self.changed(operation);
                claims.into_iter().for_each(|claim| self.spawn(claim));
            }
            if taken == 0 {
                return Ok(());
            }
        }
    }

    /// Works on a claim in a task of its own.
    pub(crate) fn spawn(&self, claim: Claim) {
        let engine = self.clone();
        self.inner.tasks.spawn(async move {
            let slots = engine.inner.slots.clone();
            // Claims that follow from a completion may exceed the slots for a moment: they wait here.
            let Ok(_slot) = slots.acquire_owned().await else { return };
            let dead = engine.inner.dead.clone();
            tokio::select! {
                biased;
                () = dead.cancelled() => {}
                () = engine.execute(claim) => {}
            }
        });
    }
}
