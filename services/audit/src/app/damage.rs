//! Which logs are damaged, and what becomes of them: each is held until it is whole again, and then goes on with what
//! was parked for it. An operator repairs it, from a backup or by undoing what was done; that it is whole is noticed here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::{Gauge, Meter};
use tokio::sync::watch;

use super::keeper::Remember;
use super::leaf;
use crate::config::Config;
use crate::domain::known::{Acceptance, KnownLogs};
use crate::domain::tree::Edge;
use crate::error::{Error, SetBack};
use crate::store::{AuditStore, Demand, HeldLog, NOT_HELD, Released, Sign};

/// How often a log that is held is looked at again.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// How often the sizes of all logs are compared with what is known of them.
pub(crate) const COMPARE: Duration = Duration::from_secs(10);
/// Most logs that are named at once.
const SHOWN: usize = 5;

/// What was found of all logs.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    /// Those that fit together, with their edges.
    pub(crate) sound: Vec<(String, Edge)>,
    /// Those that do not, and why.
    pub(crate) damaged: BTreeMap<String, String>,
    /// Those that do not even go on from where an operator let them.
    pub(crate) set_back: Vec<SetBack>,
    /// What had been accepted of logs before they were looked at.
    pub(crate) accepted: Vec<(String, Acceptance)>,
}

impl Inspection {
    /// Takes those for damaged that were set back.
    pub(crate) fn condemn_set_back(&mut self) {
        for set_back in std::mem::take(&mut self.set_back) {
            self.condemn(&set_back.log, set_back.why());
        }
    }

    /// Takes a log for damaged that fits together in itself.
    pub(crate) fn condemn(&mut self, log: &str, why: String) {
        self.sound.retain(|(sound, _)| sound != log);
        self.damaged.entry(log.to_owned()).or_insert(why);
    }
}

/// Checks every log's head, tiles, last record and checkpoint against each other.
///
/// # Errors
/// When the database cannot be read, and when all logs are whole but of another name or key: then nothing is damaged,
/// and the configuration is wrong.
pub(crate) async fn inspect(store: &AuditStore, signer: &dyn Sign) -> Result<Inspection, Error> {
    let accepted = store.newly_accepted_unscoped(&KnownLogs::default(), signer).await?;
    let (mut inspection, foreign) = inspect_those(store, signer, store.logs_unscoped().await?).await?;
    for (log, acceptance) in &accepted {
        // It goes on at least from where an operator let it.
        match store.set_back_unscoped(log, &acceptance.mark, None).await {
            Ok(None) => {}
            Ok(Some(set_back)) => inspection.set_back.push(set_back),
            Err(error) => inspection.condemn(log, error.damage()?.1),
        }
    }
    inspection.accepted = accepted;
    match foreign {
        Some((log, why)) if inspection.sound.is_empty() => Err(Error::Inconsistent { log, why }),
        _ => Ok(inspection),
    }
}

/// The same of some logs, which have begun; also the first that is whole but of another name or key.
async fn inspect_those(
    store: &AuditStore,
    signer: &dyn Sign,
    logs: Vec<String>,
) -> Result<(Inspection, Option<(String, String)>), Error> {
    let mut inspection = Inspection::default();
    let mut foreign = None;
    for log in logs {
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
            Err(error) => error.damage()?.1,
        };
        inspection.damaged.insert(log, why);
    }
    Ok((inspection, foreign))
}

/// Looks after the logs that are held. What it knows is what the database says, which all processes share.
pub(crate) struct HeldLogs {
    store: AuditStore,
    signer: Arc<dyn Sign>,
    remember: Option<Arc<Remember>>,
    max_records: usize,
    /// What this process knows of logs, held or not.
    known_logs: Arc<KnownLogs>,
    held: BTreeMap<String, Held>,
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
        f.debug_struct("HeldLogs").field("held", &self.held).finish_non_exhaustive()
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
        let known_logs = Arc::new(KnownLogs::of(&inspection.sound, &inspection.accepted));
        let held = BTreeMap::new();
        let mut held_logs = Self { store, signer, remember, max_records, known_logs, held, said, waiting };
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

    /// What this process knows of logs.
    pub(crate) fn known(&self) -> &Arc<KnownLogs> {
        &self.known_logs
    }

    /// Takes in how far logs have come.
    pub(crate) fn learn(&mut self, grown: Edges) {
        if grown.is_empty() {
            return;
        }
        if let Some(remember) = &self.remember {
            remember.grown(&grown);
        }
        Arc::make_mut(&mut self.known_logs).learn(grown);
    }

    /// Holds a log.
    pub(crate) async fn hold(&mut self, log: &str, why: &str) -> Result<(), Error> {
        self.demand(log, why).await?;
        self.look().await
    }

    /// Holds those of the logs whose rows cannot be read; returns whether there are any.
    pub(crate) async fn hold_unreadable(&mut self, logs: &BTreeSet<&str>) -> Result<bool, Error> {
        let begun = self.store.logs_unscoped().await?;
        let concerned =
            begun.into_iter().filter(|log| logs.contains(log.as_str()) && !self.held.contains_key(log));
        let concerned = concerned.collect();
        let (found, _) = inspect_those(&self.store, self.signer.as_ref(), concerned).await?;
        for (log, why) in &found.damaged {
            self.hold(log, why).await?;
        }
        Ok(!found.damaged.is_empty())
    }

    /// Lets the database demand of a log that is held what this process knows of it: whoever lets it go may know less.
    async fn demand(&self, log: &str, why: &str) -> Result<(), Error> {
        let (mark, generation) = (self.known_logs.mark(log).copied(), self.known_logs.generation(log));
        self.store.hold_unscoped(log, why, Demand { mark, generation, tile: None }, &self.signer).await
    }

    /// Says that no more can be parked for a log, once.
    pub(crate) fn full(&mut self, log: &str) {
        if let Some(held) = self.held.get_mut(log)
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

    /// Drops what it knows of logs that went on from another state since, because an operator accepted the loss.
    async fn yield_to_acceptance(&mut self) -> Result<(), Error> {
        let accepted = self.store.newly_accepted_unscoped(&self.known_logs, self.signer.as_ref()).await?;
        if !accepted.is_empty() {
            Arc::make_mut(&mut self.known_logs).accept(accepted);
        }
        Ok(())
    }

    /// Holds the logs that have become shorter since this process looked last, though nobody appends to them.
    pub(crate) async fn compare(&mut self) -> Result<(), Error> {
        self.yield_to_acceptance().await?;
        let sizes = self.store.sizes_unscoped().await?;
        for (log, mark) in self.known_logs.behind(&sizes) {
            if self.held.contains_key(&log) {
                continue;
            }
            let damage = match self.store.set_back_unscoped(&log, &mark, None).await {
                Ok(None) => continue,
                Ok(Some(set_back)) => Error::SetBack(vec![set_back]),
                Err(error) => error.of_log(&log),
            };
            match damage.damage() {
                Ok((_, why)) => self.hold(&log, &why).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Looks at what is held now.
    pub(crate) async fn look(&mut self) -> Result<(), Error> {
        self.yield_to_acceptance().await?;
        // Nobody else would come back to them.
        for log in self.store.left_over_unscoped().await? {
            self.demand(&log, NOT_HELD).await?;
        }
        let held = self.store.held_unscoped().await?;
        self.held.retain(|log, _| held.iter().any(|held| held.log == *log));
        for HeldLog { log, why, records, demanded } in held {
            // Held by another, who knows less.
            if self.known_logs.mark(&log).is_some_and(|mark| mark.size > demanded) {
                self.demand(&log, &why).await?;
            }
            self.admit(&log, &why, records);
        }
        self.say();
        Ok(())
    }

    /// Tries to let go what is held.
    pub(crate) async fn mend(&mut self) {
        if let Err(error) = self.look().await {
            tracing::warn!(error = %anyhow::Error::from(error), "damaged audit logs cannot be looked at");
            return;
        }
        let mut grown = Edges::new();
        for log in self.held.keys().cloned().collect::<Vec<_>>() {
            let found = self.release(&log, &mut grown).await.map_err(|error| error.of_log(&log).damage());
            match found {
                Ok(records) => {
                    self.held.remove(&log);
                    tracing::info!(log, records, "audit log is whole again and has what was parked for it");
                }
                Err(Ok((_, why))) => self.found(&log, why).await,
                Err(Err(error)) => {
                    tracing::warn!(log, error = %anyhow::Error::from(error), "audit log stays held");
                }
            }
        }
        self.learn(grown);
        self.say();
    }

    /// Takes in what keeps a log held now, where everybody looks for it.
    async fn found(&mut self, log: &str, why: String) {
        let Some(held) = self.held.get_mut(log).filter(|held| held.why != why) else { return };
        held.why.clone_from(&why);
        if let Err(error) = self.demand(log, &why).await {
            tracing::warn!(log, error = %anyhow::Error::from(error), "why a log is held cannot be written");
        }
    }

    /// Appends what is parked for a log, a bounded transaction at a time; what may be parked bounds how many there are.
    async fn release(&self, log: &str, grown: &mut Edges) -> Result<usize, Error> {
        if let Some(remember) = &self.remember
            && let Some(set_back) = remember.compare(&self.store, log).await?
        {
            return Err(Error::SetBack(vec![set_back]));
        }
        if let Some(mark) = self.known_logs.mark(log)
            && let Some(set_back) = self.store.set_back_unscoped(log, mark, None).await?
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

    fn say(&self) {
        self.waiting.record(self.held.values().map(|held| held.records).sum(), &[]);
        let mut told: Vec<String> = self.held.iter().take(SHOWN).map(|(log, held)| told(log, held)).collect();
        let more = self.held.len().saturating_sub(SHOWN);
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
