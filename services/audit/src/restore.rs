//! What `pavior restore` needs of the audit log: which logs were rolled back, what is recorded of a producer, and to go on
//! from a shorter log on purpose.

use std::collections::BTreeMap;
use std::sync::Arc;

use pavior_core::audit::AuditEvent;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::app::checkpoint_replica::CheckpointReplica;
use crate::app::inspection::inspect;
use crate::app::signer::Signer;
use crate::config::Config;
use crate::domain::batch::Producer;
use crate::domain::checkpoint::CheckpointSigner;
use crate::domain::codec::{self, Origin};
use crate::domain::tree::Edge;
use crate::error::Error;
use crate::store::{Absent, AuditStore, parse_stored};

pub use crate::domain::log_finding::{LogFinding, Missing};
pub use crate::domain::undone::{Undone, UndoneResource};

/// What is recorded of the services, read without the service and without its key.
#[derive(Debug, Clone)]
pub struct Records(AuditStore);

/// The audit log in the hands of an operator, without the service.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: AuditStore,
    signer: Signer,
    replica: Option<CheckpointReplica>,
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

impl Records {
    /// Takes the records of a database that is connected and has its tables.
    pub fn of(store: pavior_store::Store) -> Self {
        Self(AuditStore::new(store))
    }

    /// What is recorded of a service in an epoch.
    pub async fn produced(&self, service: &str, epoch: i64) -> Result<Produced, Error> {
        let producer = Producer { service: service.to_owned(), epoch: epoch.to_string() };
        let progress = self.0.progress_unscoped(&producer).await?;
        let last_event = progress.last_event.map(|id| parse_stored("event id", &id)).transpose()?;
        let newest_epoch = progress.newest_epoch.map(|epoch| parse_stored("epoch", &epoch)).transpose()?;
        Ok(Produced { last: progress.last_seq, last_event, newest_epoch })
    }

    /// Which of these events are recorded.
    pub async fn recorded(&self, events: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        self.0.recorded_unscoped(events).await
    }

    /// The logs with records of a service after a number of an epoch, or of a later epoch.
    pub async fn logs_after(&self, service: &str, epoch: i64, seq: i64) -> Result<Vec<String>, Error> {
        self.0.logs_after_unscoped(service, epoch, seq).await
    }

    /// What a service did after a number of an epoch, or in a later epoch: of a database that ends there, all that it
    /// does not know of. What waits for a log that is held is no record yet, and is not named.
    pub async fn undone(&self, service: &str, epoch: i64, seq: i64) -> Result<Vec<Undone>, Error> {
        self.0.undone_unscoped(service, epoch, seq).await
    }
}

impl Ledger {
    /// Takes the log of a database that is connected and has its tables.
    ///
    /// # Errors
    /// When the key or the folder of checkpoints cannot be used.
    pub fn open(config: &Config, store: pavior_store::Store) -> Result<Self, Error> {
        let signer = Signer::load(config)?;
        let folder = config.checkpoints_dir.as_deref();
        let replica = folder.map(|folder| CheckpointReplica::open(folder, signer.clone())).transpose()?;
        Ok(Self { store: AuditStore::new(store), signer, replica })
    }

    /// What is recorded of the services.
    pub fn records(&self) -> Records {
        Records(self.store.clone())
    }

    /// The logs of which something is gone or damaged, and those that are held. Reads every record.
    pub async fn look(&self) -> Result<Vec<LogFinding>, Error> {
        let mut inspection = inspect(&self.store, &self.signer).await?;
        let mut rolled_back = std::mem::take(&mut inspection.rolled_back);
        if let Some(replica) = &self.replica {
            rolled_back.extend(replica.compare(&self.store, &mut inspection).await?);
        }
        let mut findings = BTreeMap::<String, LogFinding>::new();
        let named = |log: &str| LogFinding { log: log.to_owned(), ..LogFinding::default() };
        let mut held: BTreeMap<String, u64> =
            self.store.not_held_unscoped().await?.into_iter().map(|log| (log, 0)).collect();
        held.extend(self.store.held_logs_unscoped().await?.into_iter().map(|held| (held.log, held.records)));
        let signer: Arc<dyn CheckpointSigner> = Arc::new(self.signer.clone());
        for (log, waiting) in held {
            let found = self.store.losses_unscoped(&log, &signer).await?;
            findings.insert(log, LogFinding { waiting, ..found });
        }
        for (log, why) in &inspection.damaged {
            findings.entry(log.clone()).or_insert_with(|| named(log)).damage = Some(why.clone());
        }
        for (log, edge) in &inspection.consistent {
            let checked = self.store.check_records_unscoped(log, edge.size()).await.map_err(Error::damage);
            match checked {
                Ok(()) => {}
                Err(Ok((_, why))) => {
                    findings.entry(log.clone()).or_insert_with(|| named(log)).damage = Some(why);
                }
                Err(Err(error)) => return Err(error),
            }
        }
        for rollback in rolled_back {
            let found = findings.entry(rollback.log.clone()).or_insert_with(|| named(&rollback.log));
            if found.rollback.as_ref().is_none_or(|found| found.signed < rollback.signed) {
                found.rollback = Some(rollback);
            }
        }
        Ok(findings.into_values().collect())
    }

    /// Goes on from logs of which something is gone as they are: records in each of them what, with the numbers that
    /// are missing since, so that who verifies the log knows of them; requires it no more, and begins a new generation of
    /// checkpoints. The old ones are put aside, not removed. Each log is one transaction. Returns the logs that went on,
    /// and what kept the next one from it.
    ///
    /// # Errors
    /// When a log is inconsistent: that is damage, which only a copy of the database repairs.
    pub async fn accept(
        &self,
        logs: &[LogFinding],
        event: impl Fn(&LogFinding) -> AuditEvent,
        now: OffsetDateTime,
    ) -> (Vec<String>, Result<(), Error>) {
        let mut done = Vec::new();
        let accepted = async {
            let at = pavior_store::micros(now);
            let producer = Producer { service: crate::ROLE.to_owned(), epoch: at.to_string() };
            let origin =
                Origin { producer: producer.clone(), instance: "restore".to_owned(), received_at: now };
            let signer: Arc<dyn CheckpointSigner> = Arc::new(self.signer.clone());
            let gaps = self.store.absent_unscoped().await?;
            let absent = gaps.iter().map(|gap| gap.last - gap.first + 1).sum();
            // Time goes on also where the database was set back to before an acceptance.
            let now = u64::try_from(at).unwrap_or_default();
            let first = gaps.chunks(GAPS_PER_RECORD).next().unwrap_or_default();
            let mut seq = 0;
            for lost in logs {
                let mut edge = None;
                let published =
                    self.replica.as_ref().map(|replica| replica.read(&lost.log)).transpose()?.flatten();
                let least = published.map_or(0, |state| state.generation.saturating_add(1)).max(now);
                let renumbered = self.renumbered(&lost.log).await?;
                for some in std::iter::once(first).chain(gaps.chunks(GAPS_PER_RECORD).skip(1)) {
                    seq += 1;
                    let event = with_gaps(event(lost), some, &renumbered);
                    let entry = codec::encode(&origin, &lost.log, seq, event)?;
                    edge = Some(self.store.accept_unscoped(&producer, &entry, absent, least, &signer).await?);
                }
                let anew = self.renumber_conflicting(&lost.log, &origin, &mut seq, &signer).await?;
                edge = anew.or(edge);
                if let (Some(replica), Some(edge)) = (&self.replica, edge) {
                    replica.publish(&self.store, &lost.log, &edge).await?;
                }
                done.push(lost.log.clone());
            }
            Ok(())
        };
        let accepted = accepted.await;
        (done, accepted)
    }

    /// The first events that are about to get other numbers, with those that they had.
    async fn renumbered(&self, log: &str) -> Result<Vec<serde_json::Value>, Error> {
        let conflicting = self.store.conflicting_unscoped(log).await?;
        let named = conflicting.into_iter().filter(|found| !found.is_recorded).map(|found| {
            let event = codec::decode_event(log, &found.body)?.event_id;
            let Producer { service, epoch } = found.producer;
            Ok(json!({ "service": service, "epoch": epoch, "sequence": found.seq, "event": event }))
        });
        named.collect()
    }

    /// Records the events that wait for a log under numbers which stand for others, with numbers of this run.
    async fn renumber_conflicting(
        &self,
        log: &str,
        origin: &Origin,
        seq: &mut i64,
        signer: &Arc<dyn CheckpointSigner>,
    ) -> Result<Option<Arc<Edge>>, Error> {
        let mut edge = None;
        loop {
            let conflicting = self.store.conflicting_unscoped(log).await?;
            if conflicting.is_empty() {
                return Ok(edge);
            }
            let mut entries = Vec::new();
            for found in conflicting.iter().filter(|found| !found.is_recorded) {
                *seq += 1;
                entries.push(codec::encode(origin, log, *seq, codec::decode_event(log, &found.body)?)?);
            }
            let (store, producer) = (&self.store, &origin.producer);
            let grown = store.renumber_unscoped(log, producer, &conflicting, entries, signer).await?;
            edge = grown.or(edge);
        }
    }
}

/// The event with the numbers that are in no log: what a verifier takes as known to be lost.
fn with_gaps(mut event: AuditEvent, gaps: &[Absent], renumbered: &[serde_json::Value]) -> AuditEvent {
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
