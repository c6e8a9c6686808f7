//! What should run, runs: the platform's word against what is recorded here, one workload at a time under its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use pavior_driver::{Failure, Health};
use tokio::sync::Semaphore;

use super::ProcessDriver;
use super::instance::{Instance, Live, Watcher};
use super::spec::{Desired, Spec};
use crate::ledger::LedgerEntry;

/// How many workloads come up beside each other.
const AT_ONCE: usize = 8;
/// How long one of them keeps others from coming up; after that it is only watched.
const PLACE: Duration = Duration::from_secs(3);

/// What the last round found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Workloads that should run and do not, with the reason.
    pub(super) failing: BTreeMap<String, String>,
    /// Workloads that nobody declares. They are left alone, and are not started.
    pub(super) undeclared: BTreeSet<String>,
}

/// What is to be done about a workload that should run.
enum Up {
    /// Nothing: it is gone, is to be stopped, or runs.
    Settled,
    /// It was started; whether it comes up is seen here.
    Begun { watcher: Watcher, path: Option<String>, within: Duration },
}

impl ProcessDriver {
    /// Starts every declared workload that should run and does not. Calls for single workloads go on meanwhile: the
    /// list is only a hint, and what counts is read again under the workload's own lock.
    pub(super) async fn keep(&self, declared: &BTreeSet<String>) {
        // What cannot be read is logged where it is.
        let Ok(entries) = self.ledger.all().await else { return };
        let (wanted, others): (Vec<String>, Vec<String>) = entries
            .into_iter()
            .filter(|entry| entry.ready)
            .map(|entry| entry.identity)
            .partition(|identity| declared.contains(identity));
        let places = Semaphore::new(AT_ONCE);
        let tries = wanted.into_iter().map(|identity| async {
            let up = self.bring_up(&identity, &places).await;
            (identity, up)
        });
        let tried: Vec<(String, Result<(), String>)> = tries.collect::<FuturesUnordered<_>>().collect().await;
        let mut found = Found::default();
        for (identity, result) in tried {
            if let Err(reason) = result {
                tracing::error!(
                    workload = identity,
                    reason,
                    "a workload does not come up; it is tried again"
                );
                found.failing.insert(identity, reason);
            }
        }
        for identity in others {
            let is_left = self.leave_down(&identity).await;
            self.has_reached(&identity);
            if is_left {
                found.undeclared.insert(identity);
            }
        }
        let mut last = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        for identity in found.undeclared.difference(&last.undeclared) {
            tracing::warn!(workload = identity, "nobody declares this workload; it is not started");
        }
        *last = found;
    }

    async fn bring_up(&self, identity: &str, places: &Semaphore) -> Result<(), String> {
        let place = places.acquire().await.map_err(|error| error.to_string())?;
        let begun = self.begin_again(identity).await;
        self.has_reached(identity);
        match begun? {
            Up::Settled => Ok(()),
            // Not under the lock: somebody may want to change or remove it before it answers. It stays supervised
            // whatever comes of this.
            Up::Begun { mut watcher, path, within } => {
                let healthy = watcher.healthy(path.as_deref(), within);
                tokio::pin!(healthy);
                let up = tokio::select! {
                    up = &mut healthy => up,
                    () = tokio::time::sleep(PLACE) => {
                        drop(place);
                        healthy.await
                    }
                };
                up.map(|_| ())
            }
        }
    }

    /// From now on it is known of a workload whether it runs.
    pub(super) fn has_reached(&self, identity: &str) {
        self.reached.send_if_modified(|reached| reached.insert(identity.to_owned()));
    }

    /// Waits until it is known of a workload whether it runs: after this process has begun, it takes its turn to be started
    /// again. False when it is not in time.
    pub(super) async fn reach(&self, identity: &str, within: Duration) -> bool {
        let mut reached = self.reached.subscribe();
        let reach = reached.wait_for(|reached| reached.contains(identity));
        tokio::time::timeout(within, reach).await.is_ok_and(|reached| reached.is_ok())
    }

    async fn begin_again(&self, identity: &str) -> Result<Up, String> {
        let slot = self.slot(identity);
        let mut running = slot.lock().await;
        let recorded = self.ledger.owner(identity).map_err(|failure| failure.message)?;
        let Some(entry) = recorded.filter(|entry| entry.ready) else { return Ok(Up::Settled) };
        let spec = self.read(&entry).ok_or("its recorded state cannot be opened")?;
        if spec.desired != Desired::Running {
            return Ok(Up::Settled);
        }
        match running.as_ref().map(Instance::live) {
            // Its supervision starts it again by itself.
            Some(Live::Crashed { message }) => return Err(message),
            Some(_) => return Ok(Up::Settled),
            None => {}
        }
        self.wait_for_old(identity, None).await;
        let instance = self.supervise(&entry, &spec).map_err(|failure| failure.message)?;
        let up = Up::Begun {
            watcher: instance.watcher(),
            path: spec.health_path.clone(),
            within: Duration::from_millis(spec.health_timeout_ms),
        };
        *running = Some(instance);
        Ok(up)
    }

    /// Starts one as it is recorded, on its port.
    pub(super) fn supervise(&self, entry: &LedgerEntry, spec: &Spec) -> Result<Instance, Failure> {
        self.begin(&entry.identity, spec, self.ports.take(spec.port)?)
    }

    /// Sees to it that nothing of an earlier process runs on. False when the workload is known by now: its apply has
    /// ended since the platform was asked, or it is gone.
    async fn leave_down(&self, identity: &str) -> bool {
        let slot = self.slot(identity);
        let running = slot.lock().await;
        let recorded = self.ledger.owner(identity).ok().flatten().is_some_and(|entry| entry.ready);
        if !recorded || running.is_some() {
            return false;
        }
        self.wait_for_old(identity, None).await;
        true
    }

    /// Well, or the workloads that should run and do not stay up.
    pub(super) fn failing(&self) -> Health {
        let mut failing = self.found.lock().unwrap_or_else(PoisonError::into_inner).failing.clone();
        let slots: Vec<_> = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.iter().map(|(identity, slot)| (identity.clone(), slot.clone())).collect()
        };
        for (identity, slot) in slots {
            let Ok(running) = slot.try_lock() else { continue };
            match running.as_ref().map(Instance::live) {
                Some(Live::Crashed { message }) => drop(failing.insert(identity, message)),
                // It came up after all.
                Some(Live::Up { .. }) => drop(failing.remove(&identity)),
                Some(_) => {}
                None => {
                    if matches!(self.ledger.owner(&identity), Ok(None)) {
                        failing.remove(&identity);
                    }
                }
            }
        }
        match failing.first_key_value() {
            None => Health::Ok,
            Some((identity, reason)) => {
                let count = failing.len();
                Health::Degraded(format!("{count} workload(s) do not run, such as `{identity}`: {reason}"))
            }
        }
    }
}
