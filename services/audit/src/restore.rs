//! What `pavior restore` needs of the audit log: which logs were set back, what is recorded of a producer, and to go on
//! from a shorter log on purpose.

use std::collections::BTreeMap;
use std::sync::Arc;

use pavior_core::audit::AuditEvent;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::app::damage;
use crate::app::leaf::{self, Origin};
use crate::app::second_place::SecondPlace;
use crate::app::signer::Signer;
use crate::config::Config;
use crate::domain::batch::Producer;
use crate::domain::tree::Edge;
use crate::error::{Error, SetBack};
use crate::store::{Absent, AuditStore, Losses, Sign};

/// The audit log in the hands of an operator, without the service.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: AuditStore,
    signer: Signer,
    place: Option<SecondPlace>,
}

/// What was found of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogFinding {
    /// The log.
    pub log: String,
    /// How many events wait for it.
    pub waiting: u64,
    /// What does not fit together: no loss that can be accepted, but for a copy of the database to mend.
    pub damage: Option<String>,
    /// It does not go on from what was signed.
    pub set_back: Option<SetBack>,
    /// Events that waited for it and are gone.
    pub missing: Option<Missing>,
    /// Events that wait for it and whose numbers stand for others in the records: by going on, they are recorded under
    /// other numbers.
    pub clashing: u64,
}

/// Events that waited for a log and are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// How many.
    pub records: i64,
    /// Their bytes.
    pub bytes: i64,
}

impl LogFinding {
    /// What is gone of it for good by going on, in words; none when nothing is, or when it cannot go on.
    pub fn lost(&self) -> Option<String> {
        let missing = self.missing.map(|Missing { records, bytes }| {
            format!("{records} events of {bytes} bytes that waited for audit log `{}` are gone", self.log)
        });
        let clashing = (self.clashing > 0).then(|| {
            let Self { clashing, log, .. } = self;
            format!("the numbers of {clashing} events that wait for audit log `{log}` stand for others")
        });
        let set_back = self.set_back.iter().map(ToString::to_string);
        let lost: Vec<String> = set_back.chain(missing).chain(clashing).collect();
        (self.damage.is_none() && !lost.is_empty()).then(|| lost.join("; "))
    }
}

/// Most gaps that one record names.
const GAPS_PER_RECORD: usize = 500;

/// What is recorded of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Produced {
    /// The last number of the epoch that was asked for; 0 for none.
    pub last: i64,
    /// The id of that event.
    pub last_event: Option<Uuid>,
    /// The newest epoch of the service.
    pub newest_epoch: Option<i64>,
}

impl Ledger {
    /// Takes the log of a database that is connected and has its tables.
    ///
    /// # Errors
    /// When the key or the folder of checkpoints cannot be used.
    pub fn open(config: &Config, store: pavior_store::Store) -> Result<Self, Error> {
        let signer = Signer::load(config)?;
        let place = config.checkpoints_dir.as_deref().map(|folder| SecondPlace::open(folder, signer.clone()));
        Ok(Self { store: AuditStore::new(store), signer, place: place.transpose()? })
    }

    /// The logs of which something is gone or damaged, and those that are held. Reads every record.
    pub async fn look(&self) -> Result<Vec<LogFinding>, Error> {
        let mut inspection = damage::inspect(&self.store, &self.signer).await?;
        let mut set_back = std::mem::take(&mut inspection.set_back);
        if let Some(place) = &self.place {
            set_back.extend(place.compare(&self.store, &mut inspection).await?);
        }
        let mut findings = BTreeMap::<String, LogFinding>::new();
        let named = |log: &str| LogFinding { log: log.to_owned(), ..LogFinding::default() };
        let mut held: BTreeMap<String, u64> =
            self.store.left_over_unscoped().await?.into_iter().map(|log| (log, 0)).collect();
        held.extend(self.store.held_unscoped().await?.into_iter().map(|held| (held.log, held.records)));
        let signer: Arc<dyn Sign> = Arc::new(self.signer.clone());
        for (log, waiting) in held {
            let Losses { damage, set_back, missing, clashing } =
                self.store.losses_unscoped(&log, &signer).await?;
            let missing = missing.map(|(records, bytes)| Missing { records, bytes });
            findings.insert(log.clone(), LogFinding { log, waiting, damage, set_back, missing, clashing });
        }
        for (log, why) in &inspection.damaged {
            findings.entry(log.clone()).or_insert_with(|| named(log)).damage = Some(why.clone());
        }
        for (log, edge) in &inspection.sound {
            let checked = self.store.check_records_unscoped(log, edge.size()).await.map_err(Error::damage);
            match checked {
                Ok(()) => {}
                Err(Ok((_, why))) => {
                    findings.entry(log.clone()).or_insert_with(|| named(log)).damage = Some(why);
                }
                Err(Err(error)) => return Err(error),
            }
        }
        for set_back in set_back {
            let found = findings.entry(set_back.log.clone()).or_insert_with(|| named(&set_back.log));
            if found.set_back.as_ref().is_none_or(|demanded| demanded.signed < set_back.signed) {
                found.set_back = Some(set_back);
            }
        }
        Ok(findings.into_values().collect())
    }

    /// What is recorded of a service in an epoch.
    pub async fn produced(&self, service: &str, epoch: i64) -> Result<Produced, Error> {
        let producer = Producer { service: service.to_owned(), epoch: epoch.to_string() };
        let progress = self.store.progress_unscoped(&producer).await?;
        Ok(Produced {
            last: progress.last_seq,
            last_event: progress.last_event.and_then(|id| id.parse().ok()),
            newest_epoch: progress.newest_epoch.and_then(|epoch| epoch.parse().ok()),
        })
    }

    /// Which of these events are recorded.
    pub async fn recorded(&self, events: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        self.store.recorded_unscoped(events).await
    }

    /// The logs with records of a service after a number of an epoch, or of a later epoch.
    pub async fn logs_after(&self, service: &str, epoch: i64, seq: i64) -> Result<Vec<String>, Error> {
        self.store.logs_after_unscoped(service, epoch, seq).await
    }

    /// Goes on from logs of which something is gone as they are: records in each of them what, with the numbers that
    /// are missing since, so that who verifies the log knows of them; demands it no more, and begins a new line of
    /// checkpoints. The old ones are put aside, not removed. Each log is one transaction. Returns the logs that went on,
    /// and what kept the next one from it.
    ///
    /// # Errors
    /// When a log does not fit together: that is no loss, and is for a copy to mend.
    pub async fn accept(
        &self,
        logs: &[LogFinding],
        event: impl Fn(&LogFinding) -> AuditEvent,
        now: OffsetDateTime,
    ) -> (Vec<String>, Result<(), Error>) {
        let mut done = Vec::new();
        let accepted = self.accept_each(logs, event, now, &mut done).await;
        (done, accepted)
    }

    async fn accept_each(
        &self,
        logs: &[LogFinding],
        event: impl Fn(&LogFinding) -> AuditEvent,
        now: OffsetDateTime,
        done: &mut Vec<String>,
    ) -> Result<(), Error> {
        let at = pavior_store::micros(now);
        let producer = Producer { service: crate::ROLE.to_owned(), epoch: at.to_string() };
        let origin = Origin { producer: producer.clone(), instance: "restore".to_owned(), received_at: now };
        let signer: Arc<dyn Sign> = Arc::new(self.signer.clone());
        let gaps = self.store.absent_unscoped().await?;
        let absent = gaps.iter().map(|gap| gap.last - gap.first + 1).sum();
        // Time goes on also where the database was set back to before an acceptance.
        let now = u64::try_from(at).unwrap_or_default();
        let first = gaps.chunks(GAPS_PER_RECORD).next().unwrap_or_default();
        let mut seq = 0;
        for lost in logs {
            let mut edge = None;
            let kept = self.place.as_ref().map(|place| place.read(&lost.log)).transpose()?.flatten();
            let least = kept.map_or(0, |kept| kept.generation.saturating_add(1)).max(now);
            let renumbered = self.renumbered(&lost.log).await?;
            for some in std::iter::once(first).chain(gaps.chunks(GAPS_PER_RECORD).skip(1)) {
                seq += 1;
                let event = naming(event(lost), some, &renumbered);
                let entry = leaf::entry(&origin, &lost.log, seq, event)?;
                edge = Some(self.store.accept_unscoped(&producer, &entry, absent, least, &signer).await?);
            }
            let anew = self.record_clashes_anew(&lost.log, &origin, &mut seq, &signer).await?;
            edge = anew.or(edge);
            if let (Some(place), Some(edge)) = (&self.place, edge) {
                place.keep(&self.store, &lost.log, &edge).await?;
            }
            done.push(lost.log.clone());
        }
        Ok(())
    }
}

impl Ledger {
    /// The first events that are about to get other numbers, with those that they had.
    async fn renumbered(&self, log: &str) -> Result<Vec<serde_json::Value>, Error> {
        let clashes = self.store.clashes_unscoped(log, leaf::reread, leaf::content).await?;
        let named = clashes.into_iter().filter(|clash| !clash.is_recorded).map(|clash| {
            let event = leaf::read(log, &clash.body)?.event_id;
            let Producer { service, epoch } = clash.producer;
            Ok(json!({ "service": service, "epoch": epoch, "sequence": clash.seq, "event": event }))
        });
        named.collect()
    }

    /// Records the events that wait for a log under numbers which stand for others, with numbers of this run.
    async fn record_clashes_anew(
        &self,
        log: &str,
        origin: &Origin,
        seq: &mut i64,
        signer: &Arc<dyn Sign>,
    ) -> Result<Option<Arc<Edge>>, Error> {
        let mut edge = None;
        loop {
            let clashes = self.store.clashes_unscoped(log, leaf::reread, leaf::content).await?;
            if clashes.is_empty() {
                return Ok(edge);
            }
            let mut entries = Vec::new();
            for clash in clashes.iter().filter(|clash| !clash.is_recorded) {
                *seq += 1;
                entries.push(leaf::entry(origin, log, *seq, leaf::read(log, &clash.body)?)?);
            }
            let store = &self.store;
            let grown = store.record_anew_unscoped(log, &origin.producer, &clashes, entries, signer).await?;
            edge = grown.or(edge);
        }
    }
}

/// The event with the numbers that are in no log: what a verifier takes as known to be lost.
fn naming(mut event: AuditEvent, gaps: &[Absent], renumbered: &[serde_json::Value]) -> AuditEvent {
    let gap = |Absent { service, epoch, first, last }: &Absent| json!({ "service": service, "epoch": epoch, "first": first, "last": last });
    let change = event.change.get_or_insert_default();
    let mut after = change.after.take().unwrap_or_else(|| json!({}));
    after["gaps"] = gaps.iter().map(gap).collect();
    if !renumbered.is_empty() {
        after["renumbered"] = renumbered.into();
    }
    change.after = Some(after);
    event
}
