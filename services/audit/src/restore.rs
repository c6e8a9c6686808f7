//! What `pavior restore` needs of the audit log: which logs were set back, what is recorded of a producer, and to go on
//! from a shorter log on purpose.

use std::sync::Arc;

use pavior_core::audit::AuditEvent;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::app::damage;
use crate::app::leaf::{self, Origin};
use crate::app::second_place::SecondPlace;
use crate::app::signer::Signer;
use crate::config::Config;
use crate::domain::batch::{Batch, Producer, Submission};
use crate::error::{Error, SetBack};
use crate::store::{AuditStore, Limits, Sign};

/// The audit log in the hands of an operator, without the service.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: AuditStore,
    signer: Signer,
    place: Option<SecondPlace>,
    limits: Limits,
}

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
        let limits = Limits { records: config.max_parked_records, bytes: config.max_parked_bytes };
        Ok(Self { store: AuditStore::new(store), signer, place: place.transpose()?, limits })
    }

    /// The logs that do not go on from the checkpoints that are kept outside of the database.
    pub async fn set_back(&self) -> Result<Vec<SetBack>, Error> {
        match &self.place {
            Some(place) => {
                place.compare(&self.store, &damage::inspect(&self.store, &self.signer).await?).await
            }
            None => Ok(Vec::new()),
        }
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

    /// Goes on from logs as they are: records in each of them what is missing, and begins a new line of checkpoints.
    /// The old ones are put aside, not removed.
    pub async fn accept(
        &self,
        logs: &[SetBack],
        event: impl Fn(&SetBack) -> AuditEvent,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let Some(place) = &self.place else { return Ok(()) };
        let at = pavior_store::micros(now);
        let producer = Producer { service: crate::ROLE.to_owned(), epoch: at.to_string() };
        let origin = Origin { producer: producer.clone(), instance: "restore".to_owned(), received_at: now };
        let entries = (1..).zip(logs).map(|(seq, lost)| leaf::entry(&origin, &lost.log, seq, event(lost)));
        let submission = Submission { producer, entries: entries.collect::<Result<_, _>>()? };
        let batch = Arc::new(Batch { submissions: vec![submission] });
        let signer: Arc<dyn Sign> = Arc::new(self.signer.clone());
        self.store.append_unscoped(&batch, &Arc::default(), &signer, leaf::content, self.limits).await?;
        for lost in logs {
            place.put_aside(&lost.log, at)?;
        }
        place.keep_all(&damage::inspect(&self.store, &self.signer).await?)
    }
}
