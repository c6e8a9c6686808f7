//! The logs that are held because they are damaged: each until it is consistent again; then it goes on with what was
//! parked for it. An operator repairs it, from a backup or by undoing what was done; that it is repaired is noticed here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::{Gauge, Meter};
use tokio::sync::watch;

use super::checkpoint_publisher::PublisherHandle;
use super::inspection::{Inspection, inspect_logs};
use crate::config::Config;
use crate::domain::checkpoint::CheckpointSigner;
use crate::domain::observed_logs::ObservedLogs;
use crate::domain::tree::Edge;
use crate::error::Error;
use crate::store::{AuditStore, HeldLog, NOT_HELD, ReleaseCondition, Released};

/// How often it is tried to release logs.
pub(crate) const RELEASE_INTERVAL: Duration = Duration::from_secs(1);
/// How often the sizes of all logs are compared with what was seen of them.
pub(crate) const COMPARE_INTERVAL: Duration = Duration::from_secs(10);
/// Most logs that are named at once.
const MAX_NAMED: usize = 5;

/// The logs that are held, as the database has them for all processes.
#[derive(Debug)]
pub(crate) struct HeldLogs {
    store: AuditStore,
    signer: Arc<dyn CheckpointSigner>,
    publisher: Option<Arc<PublisherHandle>>,
    max_records: usize,
    /// What this process has seen of logs, held or not.
    observed: Arc<ObservedLogs>,
    held: BTreeMap<String, Held>,
    health: watch::Sender<Result<(), String>>,
    parked: Gauge<u64>,
}

#[derive(Debug)]
struct Held {
    /// What was found last.
    why: String,
    records: u64,
    /// Whether it was logged that no more can be parked.
    is_full: bool,
}

/// The edges of logs that have grown.
pub(crate) type Edges = Vec<(String, Arc<Edge>)>;

impl HeldLogs {
    /// Holds the logs that are damaged, and takes over those that were held before.
    pub(crate) async fn open(
        config: &Config,
        store: AuditStore,
        signer: Arc<dyn CheckpointSigner>,
        publisher: Option<Arc<PublisherHandle>>,
        inspection: &Inspection,
        meter: &Meter,
    ) -> Result<Self, Error> {
        let parked = meter
            .u64_gauge("pavior.audit.parked")
            .with_description("events that wait for the repair of a damaged log: alarm on any")
            .build();
        let health = watch::Sender::new(Ok(()));
        let max_records = config.max_batch_records;
        let observed = Arc::new(ObservedLogs::of(&inspection.consistent, &inspection.accepted));
        let held = BTreeMap::new();
        let mut held_logs = Self { store, signer, publisher, max_records, observed, held, health, parked };
        for (log, why) in &inspection.damaged {
            held_logs.hold(log, why).await?;
        }
        held_logs.refresh().await?;
        Ok(held_logs)
    }

    /// What operators are told of the logs that are held.
    pub(crate) fn health(&self) -> watch::Receiver<Result<(), String>> {
        self.health.subscribe()
    }

    /// What this process has seen of logs.
    pub(crate) fn observed(&self) -> &Arc<ObservedLogs> {
        &self.observed
    }

    /// Takes in how far logs have come.
    pub(crate) fn advance(&mut self, grown: Edges) {
        if grown.is_empty() {
            return;
        }
        if let Some(publisher) = &self.publisher {
            publisher.publish(&grown);
        }
        Arc::make_mut(&mut self.observed).advance(grown);
    }

    /// Holds a log.
    pub(crate) async fn hold(&mut self, log: &str, why: &str) -> Result<(), Error> {
        self.write_hold(log, why).await?;
        self.refresh().await
    }

    /// Holds those of the logs whose rows cannot be read; returns whether there are any.
    pub(crate) async fn hold_unreadable(&mut self, logs: &BTreeSet<&str>) -> Result<bool, Error> {
        let begun = self.store.logs_unscoped().await?;
        let concerned =
            begun.into_iter().filter(|log| logs.contains(log.as_str()) && !self.held.contains_key(log));
        let concerned = concerned.collect();
        let (found, _) = inspect_logs(&self.store, self.signer.as_ref(), concerned).await?;
        for (log, why) in &found.damaged {
            self.hold(log, why).await?;
        }
        Ok(!found.damaged.is_empty())
    }

    /// Holds a log in the database until it goes on from what this process has seen of it: whoever releases it may have
    /// seen less.
    async fn write_hold(&self, log: &str, why: &str) -> Result<(), Error> {
        let condition = ReleaseCondition { state: self.observed.state(log).copied(), tile: None };
        self.store.hold_unscoped(log, why, condition, &self.signer).await
    }

    /// Logs that no more can be parked for a log, once.
    pub(crate) fn parking_full(&mut self, log: &str) {
        if let Some(held) = self.held.get_mut(log)
            && !std::mem::replace(&mut held.is_full, true)
        {
            tracing::error!(
                log,
                parked = held.records,
                "no more events can be parked for a damaged audit log: the services that they come from are held up"
            );
            self.report();
        }
    }

    /// Drops what was seen of logs that go on from another state since, because an operator accepted the loss.
    async fn take_accepted_losses(&mut self) -> Result<(), Error> {
        let accepted = self.store.newly_accepted_unscoped(&self.observed, self.signer.as_ref()).await?;
        if !accepted.is_empty() {
            Arc::make_mut(&mut self.observed).accept(accepted);
        }
        Ok(())
    }

    /// Holds the logs that have become shorter since this process looked last, though nobody appends to them.
    pub(crate) async fn compare(&mut self) -> Result<(), Error> {
        self.take_accepted_losses().await?;
        let sizes = self.store.sizes_unscoped().await?;
        for (log, head) in self.observed.shrunk(&sizes) {
            if self.held.contains_key(&log) {
                continue;
            }
            let why = match self.store.rollback_unscoped(&log, &head, None).await {
                Ok(None) => continue,
                Ok(Some(rollback)) => rollback.why(),
                Err(error) => error.damage()?.1,
            };
            self.hold(&log, &why).await?;
        }
        Ok(())
    }

    /// Takes in which logs are held now, by whichever process.
    pub(crate) async fn refresh(&mut self) -> Result<(), Error> {
        self.take_accepted_losses().await?;
        // Nobody else would come back to them.
        for log in self.store.not_held_unscoped().await? {
            self.write_hold(&log, NOT_HELD).await?;
        }
        let held = self.store.held_logs_unscoped().await?;
        self.held.retain(|log, _| held.iter().any(|held| held.log == *log));
        for HeldLog { log, why, records, required_size } in held {
            // Held by another process, which has seen less.
            if self.observed.head(&log).is_some_and(|head| head.size > required_size) {
                self.write_hold(&log, &why).await?;
            }
            self.track(&log, &why, records);
        }
        self.report();
        Ok(())
    }

    /// Tries to release what is held.
    pub(crate) async fn release_repaired(&mut self) {
        if let Err(error) = self.refresh().await {
            tracing::warn!(error = %anyhow::Error::from(error), "held audit logs cannot be read");
            return;
        }
        let mut grown = Edges::new();
        for log in self.held.keys().cloned().collect::<Vec<_>>() {
            let released = self.release(&log, &mut grown).await.map_err(|error| error.of_log(&log).damage());
            match released {
                Ok(records) => {
                    self.held.remove(&log);
                    tracing::info!(
                        log,
                        records,
                        "audit log is consistent again and has what was parked for it"
                    );
                }
                Err(Ok((_, why))) => self.set_reason(&log, why).await,
                Err(Err(error)) => {
                    tracing::warn!(log, error = %anyhow::Error::from(error), "audit log stays held");
                }
            }
        }
        self.advance(grown);
        self.report();
    }

    /// Writes what keeps a log held now, where everybody looks for it.
    async fn set_reason(&mut self, log: &str, why: String) {
        let Some(held) = self.held.get_mut(log).filter(|held| held.why != why) else { return };
        held.why.clone_from(&why);
        if let Err(error) = self.write_hold(log, &why).await {
            tracing::warn!(log, error = %anyhow::Error::from(error), "why a log is held cannot be written");
        }
    }

    /// Appends what is parked for a log, a bounded transaction at a time; what may be parked bounds how many there are.
    async fn release(&self, log: &str, grown: &mut Edges) -> Result<usize, Error> {
        if let Some(publisher) = &self.publisher
            && let Some(rollback) = publisher.compare(&self.store, log).await?
        {
            return Err(rollback.into());
        }
        if let Some(head) = self.observed.head(log)
            && let Some(rollback) = self.store.rollback_unscoped(log, head, None).await?
        {
            return Err(rollback.into());
        }
        let mut appended = 0;
        loop {
            let Released { records, edges, more } =
                self.store.release_unscoped(log, &self.signer, self.max_records).await?;
            appended += records;
            grown.extend(edges);
            if !more {
                return Ok(appended);
            }
        }
    }

    fn track(&mut self, log: &str, why: &str, records: u64) {
        match self.held.get_mut(log) {
            Some(held) => held.records = records,
            None => {
                tracing::error!(
                    log,
                    why,
                    "audit log is not consistent: what comes for it waits for its repair"
                );
                self.held.insert(log.to_owned(), Held { why: why.to_owned(), records, is_full: false });
            }
        }
    }

    /// Tells operators what is held, by health and metrics.
    fn report(&self) {
        self.parked.record(self.held.values().map(|held| held.records).sum(), &[]);
        let mut described: Vec<String> =
            self.held.iter().take(MAX_NAMED).map(|(log, held)| describe(log, held)).collect();
        let more = self.held.len().saturating_sub(MAX_NAMED);
        if more > 0 {
            described.push(format!("and {more} more logs"));
        }
        let health = if described.is_empty() { Ok(()) } else { Err(described.join("; ")) };
        self.health.send_if_modified(|before| {
            let differs = *before != health;
            *before = health;
            differs
        });
    }
}

fn describe(log: &str, Held { why, records, is_full }: &Held) -> String {
    let full = if *is_full { ", and no more can be parked" } else { "" };
    format!("audit log `{log}` is damaged ({why}): {records} events wait for its repair{full}")
}
