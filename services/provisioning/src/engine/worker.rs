//! The loop that takes steps: woken at once by whoever made work, polling as the truth.

use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Engine, FaultPoint};
use crate::error::{Error, Result};
use crate::store::Claim;

/// How long calls may go on after shutdown was asked for, before their claims are left to recovery.
const DRAIN: Duration = Duration::from_secs(5);

impl Engine {
    /// Works until cancelled. Calls that are under way then get a moment to end; what does not is recovered later.
    pub async fn run(&self, cancel: CancellationToken) {
        // An engine runs once; a second run would stop with the first.
        let _ = self.stopping.set(cancel.clone());
        self.recover_own().await;
        self.recovered.cancel();
        let poll = Duration::from_millis(self.config.poll_ms.max(1));
        let mut recovered = Instant::now();
        while !cancel.is_cancelled() && !self.is_dead() {
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "looking for work failed and will be repeated");
            }
            if recovered.elapsed() >= poll {
                self.recover().await;
                recovered = Instant::now();
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = self.dead.cancelled() => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(poll) => {}
            }
        }
        self.tasks.close();
        if !self.is_dead() && tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::info!("calls are still under way; they are looked after at the next start");
        }
        self.dead.cancel();
        self.tasks.wait().await;
    }

    /// Takes what can be taken now.
    pub(crate) async fn round(&self) -> Result<()> {
        loop {
            let free = self.slots.available_permits();
            if free == 0 {
                self.is_full();
                return Ok(());
            }
            let config = &self.config;
            let per_organization = i64::try_from(config.max_running_per_organization).unwrap_or(i64::MAX);
            let found =
                self.db.candidates_unscoped(free as u64, per_organization, &self.breakers.ids()).await?;
            let mut taken = 0;
            for operation in found {
                if self.is_stopping() {
                    return Ok(());
                }
                let slots = self.reserve();
                if slots.len() == 0 || self.dies(FaultPoint::BeforeIntent, "") || self.is_dead() {
                    return Ok(());
                }
                let since = Instant::now();
                let params = self.claim_params(slots.len());
                let claims = match self.db.claim_unscoped(operation, &params).await {
                    Ok(claims) => claims,
                    // Another worker was faster.
                    Err(Error::Fenced { .. }) => continue,
                    Err(error) => return Err(error),
                };
                taken += claims.len();
                self.changed(operation);
                self.begin(claims, slots, since);
            }
            if taken == 0 {
                return Ok(());
            }
        }
    }

    /// Slots for what is about to be taken of one operation, as many as are free. Before the claim: one that waited for a
    /// slot would not be renewed.
    pub(crate) fn reserve(&self) -> Slots {
        let slots = &self.slots;
        let mut most = self.config.max_running_per_operation;
        loop {
            most = most.min(slots.available_permits());
            if most == 0 {
                self.is_full();
                return Slots(None);
            }
            let wanted = u32::try_from(most).unwrap_or(u32::MAX);
            if let Ok(taken) = slots.clone().try_acquire_many_owned(wanted) {
                return Slots(Some(taken));
            }
            // Somebody was faster.
            most -= 1;
        }
    }

    /// Works on claims that were asked for at `since`, each in a task and with a slot of its own.
    pub(crate) fn begin(&self, claims: Vec<Claim>, mut slots: Slots, since: Instant) {
        for claim in claims {
            let engine = self.clone();
            let taken = Taken { slot: slots.one(), since };
            self.tasks.spawn(async move {
                let dead = engine.dead.clone();
                tokio::select! {
                    biased;
                    () = dead.cancelled() => {}
                    () = engine.execute(claim, taken) => {}
                }
            });
        }
    }
}

/// Slots that are taken for as long as this lives.
#[derive(Debug, Default)]
pub(crate) struct Slots(Option<OwnedSemaphorePermit>);

impl Slots {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Both.
    pub(crate) fn join(&mut self, other: Self) {
        match (&mut self.0, other.0) {
            (Some(own), Some(more)) => own.merge(more),
            (own @ None, more) => *own = more,
            (Some(_), None) => {}
        }
    }

    /// One of them.
    fn one(&mut self) -> Self {
        Self(self.0.as_mut().and_then(|slots| slots.split(1)))
    }
}

/// What a claim is worked on with.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) slot: Slots,
    /// Its lease began no earlier.
    pub(crate) since: Instant,
}
