//! Reads back what was written, a tile of records at a time, and hashes it again: a bit that flips on a disk should be
//! known before the backup that still has it is gone.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::{Counter, Meter};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::domain::checkpoint::CheckpointSigner;
use crate::domain::tree::TILE_WIDTH;
use crate::error::Error;
use crate::store::{AuditStore, ReleaseCondition};

/// How long to rest after all logs have been read.
const REST: Duration = Duration::from_secs(3_600);

/// Most requests for a check that wait.
const MAX_REQUESTS: usize = 64;

/// Where readers ask for records to be checked at once. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Rechecks(mpsc::Sender<Recheck>);

/// A record that is to be checked.
#[derive(Debug)]
pub(crate) struct Recheck {
    log: String,
    index: u64,
}

/// Where to ask, and what was asked for.
pub(crate) fn rechecks() -> (Rechecks, mpsc::Receiver<Recheck>) {
    let (send, receive) = mpsc::channel(MAX_REQUESTS);
    (Rechecks(send), receive)
}

impl Rechecks {
    /// Has a record checked now. When many requests wait already, whoever reads it next asks again.
    pub(crate) fn request(&self, log: &str, index: u64) {
        let _ = self.0.try_send(Recheck { log: log.to_owned(), index });
    }
}

/// The task that reads back.
#[derive(Debug)]
pub(crate) struct Checker {
    store: AuditStore,
    signer: Arc<dyn CheckpointSigner>,
    records_per_second: u32,
    checked: Counter<u64>,
    failures: Counter<u64>,
}

impl Checker {
    pub(crate) fn new(
        store: AuditStore,
        signer: Arc<dyn CheckpointSigner>,
        records_per_second: u32,
        meter: &Meter,
    ) -> Self {
        let counter =
            |name: &'static str, about: &'static str| meter.u64_counter(name).with_description(about).build();
        Self {
            store,
            signer,
            records_per_second,
            checked: counter(
                "pavior.audit.check.records",
                "stored records that were read back and hashed again",
            ),
            failures: counter(
                "pavior.audit.check.failures",
                "logs with a record that was changed: alarm on any",
            ),
        }
    }

    /// Reads all logs again and again until cancelled, and at once what a reader asks for. A log in which something is
    /// found is held, and nothing of it is changed: only operators can say whether a disk or somebody did it.
    pub(crate) async fn run(self, queue: mpsc::Receiver<Recheck>, cancel: CancellationToken) {
        tokio::join!(self.rounds(&cancel), self.recheck(queue, &cancel));
    }

    async fn recheck(&self, mut queue: mpsc::Receiver<Recheck>, cancel: &CancellationToken) {
        while let Some(Some(Recheck { log, index })) = cancel.run_until_cancelled(queue.recv()).await {
            if let Err(error) = self.check_tile(&log, index / TILE_WIDTH as u64).await {
                tracing::warn!(log, index, error = %anyhow::Error::from(error), "a record cannot be read back");
            }
        }
    }

    async fn check_tile(&self, log: &str, tile: u64) -> Result<u64, Error> {
        let size = match self.store.size_unscoped(log).await {
            Ok(size) => size,
            Err(error) => return self.hold(log, error, None).await,
        };
        match self.store.check_tile_unscoped(log, tile, size).await {
            Ok(records) => Ok(records),
            Err(error) => self.hold(log, error, Some(tile)).await,
        }
    }

    async fn rounds(&self, cancel: &CancellationToken) {
        if self.records_per_second == 0 {
            return cancel.cancelled().await;
        }
        while cancel.run_until_cancelled(self.round()).await.is_some() {
            if cancel.run_until_cancelled(tokio::time::sleep(REST)).await.is_none() {
                return;
            }
        }
    }

    async fn round(&self) {
        let logs = match self.store.logs_unscoped().await {
            Ok(logs) => logs,
            Err(error) => {
                return tracing::warn!(error = %anyhow::Error::from(error), "audit logs cannot be read back");
            }
        };
        for log in logs {
            match self.check_log(&log).await {
                Ok(records) => tracing::debug!(log, records, "audit log was read back"),
                Err(error) => {
                    tracing::warn!(log, error = %anyhow::Error::from(error), "audit log cannot be read back");
                }
            }
        }
    }

    /// Reads a log to its end, or to the first tile that was changed: then it is held.
    async fn check_log(&self, log: &str) -> Result<u64, Error> {
        let size = match self.store.size_unscoped(log).await {
            Ok(size) => size,
            Err(error) => return self.hold(log, error, None).await,
        };
        let mut total = 0;
        for tile in 0..size.div_ceil(TILE_WIDTH as u64) {
            let records = match self.store.check_tile_unscoped(log, tile, size).await {
                Ok(records) => records,
                Err(error) => return self.hold(log, error, Some(tile)).await.map(|_| total),
            };
            total += records;
            self.checked.add(records, &[]);
            tokio::time::sleep(Duration::from_secs_f64(records as f64 / f64::from(self.records_per_second)))
                .await;
        }
        Ok(total)
    }

    /// A log that was changed must not grow: the writer parks from now on what comes for it.
    async fn hold(&self, log: &str, error: Error, tile: Option<u64>) -> Result<u64, Error> {
        let (_, why) = error.damage()?;
        self.failures.add(1, &[]);
        tracing::error!(log, why, "audit log was changed: verify it and compare it with a backup");
        let condition = ReleaseCondition { state: None, tile };
        self.store.hold_unscoped(log, &why, condition, &self.signer).await?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use pavior_testkit::db;

    use super::*;
    use crate::domain::batch::{Batch, Entry, Producer, Submission};
    use crate::domain::checkpoint::{ConsistentLog, Objection, SignedNote};
    use crate::domain::hash;
    use crate::domain::log_state::TreeHead;
    use crate::store::Limits;

    const LIMITS: Limits = Limits { records: 0, bytes: 0 };

    #[derive(Debug)]
    struct Unsigned;

    impl CheckpointSigner for Unsigned {
        fn origin(&self, log: &str) -> String {
            log.to_owned()
        }

        fn sign(&self, _: &str, _: &TreeHead, sign_time: i64) -> SignedNote {
            SignedNote { note: String::new(), verifier_key: String::new(), sign_time }
        }

        fn has_signed(&self, _: &str, _: &TreeHead, _: &str) -> bool {
            false
        }

        fn objection(&self, _: &ConsistentLog) -> Option<Objection> {
            None
        }
    }

    fn batch(wrong: Option<i64>) -> Arc<Batch> {
        let entry = |seq: i64| {
            let body = seq.to_string().into_bytes();
            // A record whose bytes are not those of its hash, as after a flipped bit.
            let leaf = hash::leaf(if wrong == Some(seq) { b"" } else { &body });
            Entry::sample("acme", seq, leaf, body)
        };
        let producer = Producer { service: "catalog".into(), epoch: "e".into() };
        Arc::new(Batch {
            submissions: vec![Submission { producer, entries: (1..=600).map(entry).collect() }],
        })
    }

    fn checker(store: AuditStore) -> Checker {
        let meter = opentelemetry::metrics::MeterProvider::meter(
            &opentelemetry::metrics::noop::NoopMeterProvider::new(),
            "test",
        );
        Checker::new(store, Arc::new(Unsigned), 1_000_000, &meter)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn changed_record_is_found_in_its_tile() {
        for wrong in [None, Some(301)] {
            db::both(|db| async move {
                let store = AuditStore::open(db.connect().await).await.unwrap();
                let signer: Arc<dyn CheckpointSigner> = Arc::new(Unsigned);
                store.append_batch_unscoped(&batch(wrong), &Arc::default(), &signer, LIMITS).await.unwrap();
                let read = checker(store.clone()).check_log("acme").await.unwrap();
                let held = store.held_logs_unscoped().await.unwrap();
                let why = held.first().map(|held| held.why.as_str());
                match wrong {
                    None => assert_eq!((read, why), (600, None)),
                    Some(_) => assert_eq!((read, why), (256, Some("record 300 is not what its tile says"))),
                }
            })
            .await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tile_that_is_missing_or_short_is_not_the_end_of_the_log() {
        let damages = [
            ("DELETE FROM audit_tile WHERE level = 0 AND idx = 1", "tile 1 of level 0 is missing"),
            ("DELETE FROM audit_tile WHERE level = 0 AND idx = 2", "tile 2 of level 0 is missing"),
            ("DELETE FROM audit_tile WHERE level = 1", "tile 0 of level 1 is missing"),
            (
                "UPDATE audit_tile SET hashes = substr(hashes, 1, 3200) WHERE level = 0 AND idx = 0",
                "tile 0 of level 0 has 100 hashes, not 256",
            ),
            (
                "UPDATE audit_tile SET hashes = (SELECT hashes FROM audit_tile WHERE level = 0 AND idx = 2) \
                 WHERE level = 1",
                "hash 0 of tile 0 of level 1 is not that of the tile below",
            ),
        ];
        for (damage, want) in damages {
            db::both(|db| async move {
                let store = AuditStore::open(db.connect().await).await.unwrap();
                let signer: Arc<dyn CheckpointSigner> = Arc::new(Unsigned);
                store.append_batch_unscoped(&batch(None), &Arc::default(), &signer, LIMITS).await.unwrap();
                store.damage(damage).await;
                checker(store.clone()).check_log("acme").await.unwrap();
                let held = store.held_logs_unscoped().await.unwrap();
                assert_eq!(held.iter().map(|held| held.why.as_str()).collect::<Vec<_>>(), [want], "{damage}");
            })
            .await;
        }
    }
}
