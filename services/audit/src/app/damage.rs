//! Which logs are damaged, and what becomes of them: each is held until it is whole again, and then goes on with what
//! was parked for it. An operator repairs it, from a backup or by undoing what was done; that it is whole is noticed here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::{Gauge, Meter};
use tokio::sync::watch;

use super::leaf;
use super::second_place::Remember;
use crate::config::Config;
use crate::domain::tree::Edge;
use crate::error::Error;
use crate::store::{AuditStore, HeldLog, Released, Sign};

/// How often a log that is held is looked at again.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Most logs that are named at once.
const SHOWN: usize = 5;

/// What was found of all logs.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    /// Those that fit together, with their edges.
    pub(crate) sound: Vec<(String, Edge)>,
    /// Those that do not, and why.
    pub(crate) damaged: BTreeMap<String, String>,
}

/// Checks every log's head, tiles, last record and checkpoint against each other.
///
/// # Errors
/// When the database cannot be read, and when all logs are whole but of another name or key: then nothing is damaged,
/// and the configuration is wrong.
pub(crate) async fn inspect(store: &AuditStore, signer: &dyn Sign) -> Result<Inspection, Error> {
    let mut inspection = Inspection::default();
    let mut foreign = None;
    for log in store.logs_unscoped().await? {
        let why = match store.check_unscoped(&log).await {
            Ok(found) => match signer.objection(&found) {
                None => {
                    inspection.sound.push((log, found.edge));
                    continue;
                }
                Some(objection) => {
                    if objection.foreign && foreign.is_none() {
                        foreign = Some((log.clone(), objection.why.clone()));
                    }
                    objection.why
                }
            },
            Err(Error::Inconsistent { why, .. }) => why,
            Err(error) => return Err(error),
        };
        inspection.damaged.insert(log, why);
    }
    match foreign {
        Some((log, why)) if inspection.sound.is_empty() => Err(Error::Inconsistent { log, why }),
        _ => Ok(inspection),
    }
}

/// Looks after the logs that are held. What it knows is what the database says, which all processes share.
pub(crate) struct HeldLogs {
    store: AuditStore,
    signer: Arc<dyn Sign>,
    remember: Option<Arc<Remember>>,
    max_records: usize,
    known: BTreeMap<String, Held>,
    said: watch::Sender<Result<(), String>>,
    waiting: Gauge<u64>,
}

#[derive(Debug)]
struct Held {
    /// What was found last.
    why: String,
    records: u64,
    /// Whether it was said that no more can be parked.
    is_full: bool,
}

impl std::fmt::Debug for HeldLogs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldLogs").field("known", &self.known).finish_non_exhaustive()
    }
}

/// The edges of logs that have grown.
pub(crate) type Edges = Vec<(String, Arc<Edge>)>;

impl HeldLogs {
    /// Holds the logs that are damaged, and takes over those that were held before.
    pub(crate) async fn open(
        config: &Config,
        store: AuditStore,
        signer: Arc<dyn Sign>,
        remember: Option<Arc<Remember>>,
        inspection: &Inspection,
        meter: &Meter,
    ) -> Result<Self, Error> {
        let waiting = meter
            .u64_gauge("pavior.audit.parked")
            .with_description("events that wait for the repair of a damaged log: alarm on any")
            .build();
        let said = watch::Sender::new(Ok(()));
        let max_records = config.max_batch_records;
        let known = BTreeMap::new();
        let mut held_logs = Self { store, signer, remember, max_records, known, said, waiting };
        for (log, why) in &inspection.damaged {
            held_logs.hold(log, why).await?;
        }
        held_logs.look().await?;
        Ok(held_logs)
    }

    /// What operators are told of the logs that are held.
    pub(crate) fn health(&self) -> watch::Receiver<Result<(), String>> {
        self.said.subscribe()
    }

    /// Holds a log.
    pub(crate) async fn hold(&mut self, log: &str, why: &str) -> Result<(), Error> {
        self.store.hold_unscoped(log, why).await?;
        self.look().await
    }

    /// Says that no more can be parked for a log, once.
    pub(crate) fn full(&mut self, log: &str) {
        if let Some(held) = self.known.get_mut(log)
            && !std::mem::replace(&mut held.is_full, true)
        {
            tracing::error!(
                log,
                parked = held.records,
                "no more events can be parked for a damaged audit log: the services that they come from are held up"
            );
            self.say();
        }
    }

    /// Looks at what is held now.
    pub(crate) async fn look(&mut self) -> Result<(), Error> {
        let held = self.store.held_unscoped().await?;
        self.known.retain(|log, _| held.iter().any(|held| held.log == *log));
        for HeldLog { log, why, records } in held {
            self.admit(&log, &why, records);
        }
        self.say();
        Ok(())
    }

    /// Tries to let go what is held; returns what has grown by it.
    pub(crate) async fn mend(&mut self) -> Edges {
        if self.known.is_empty() && !self.store.is_shared() {
            return Edges::new();
        }
        if let Err(error) = self.look().await {
            tracing::warn!(error = %anyhow::Error::from(error), "damaged audit logs cannot be looked at");
            return Edges::new();
        }
        let mut grown = Edges::new();
        for log in self.known.keys().cloned().collect::<Vec<_>>() {
            match self.release(&log, &mut grown).await {
                Ok(records) => {
                    self.known.remove(&log);
                    tracing::info!(log, records, "audit log is whole again and has what was parked for it");
                }
                Err(error) => {
                    let why = match error {
                        Error::Inconsistent { why, .. } => why,
                        Error::SetBack(found) => found.iter().map(ToString::to_string).collect(),
                        error => {
                            tracing::warn!(log, error = %anyhow::Error::from(error), "audit log stays held");
                            continue;
                        }
                    };
                    if let Some(held) = self.known.get_mut(&log) {
                        held.why = why;
                    }
                }
            }
        }
        self.say();
        grown
    }

    /// Appends what is parked for a log, a bounded transaction at a time; what may be parked bounds how many there are.
    async fn release(&self, log: &str, grown: &mut Edges) -> Result<usize, Error> {
        if let Some(remember) = &self.remember
            && let Some(set_back) = remember.compare(&self.store, log).await?
        {
            return Err(Error::SetBack(vec![set_back]));
        }
        let mut appended = 0;
        loop {
            let released =
                self.store.release_unscoped(log, &self.signer, leaf::reread, self.max_records).await?;
            let Released { records, edges, more } = released;
            appended += records;
            grown.extend(edges);
            if !more {
                return Ok(appended);
            }
        }
    }

    fn admit(&mut self, log: &str, why: &str, records: u64) {
        match self.known.get_mut(log) {
            Some(held) => held.records = records,
            None => {
                tracing::error!(
                    log,
                    why,
                    "audit log is not consistent: what comes for it waits for its repair"
                );
                self.known.insert(log.to_owned(), Held { why: why.to_owned(), records, is_full: false });
            }
        }
    }

    fn say(&self) {
        self.waiting.record(self.known.values().map(|held| held.records).sum(), &[]);
        let mut told: Vec<String> =
            self.known.iter().take(SHOWN).map(|(log, held)| told(log, held)).collect();
        let more = self.known.len().saturating_sub(SHOWN);
        if more > 0 {
            told.push(format!("and {more} more logs"));
        }
        let health = if told.is_empty() { Ok(()) } else { Err(told.join("; ")) };
        self.said.send_if_modified(|said| {
            let differs = *said != health;
            *said = health;
            differs
        });
    }
}

fn told(log: &str, Held { why, records, is_full }: &Held) -> String {
    let full = if *is_full { ", and no more can be parked" } else { "" };
    format!("audit log `{log}` is damaged ({why}): {records} events wait for its repair{full}")
}
