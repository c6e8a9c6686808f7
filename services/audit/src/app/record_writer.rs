//! Group commit: one writer in each process takes what waits and writes it in one transaction.
//!
//! One writer for all logs rather than one for each: a producer numbers its events over all logs, so what it is
//! acknowledged must become durable in one step with the records, whichever logs they belong to. Replicas on
//! PostgreSQL take turns by the row lock on a log's head.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::app::held_log::{COMPARE_INTERVAL, HeldLogs, RELEASE_INTERVAL};
use crate::config::Config;
use crate::domain::batch::{Ack, Batch, Producer, Submission};
use crate::domain::checkpoint::CheckpointSigner;
use crate::error::Error;
use crate::store::{AppendedBatch, AuditStore, Limits};

#[derive(Debug)]
struct Job {
    submission: Submission,
    answer: oneshot::Sender<Result<Ack, Error>>,
}

/// Hands submissions to the writer. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Appender {
    queue: mpsc::Sender<Job>,
}

impl Appender {
    /// Returns when the records are durable. Waits while the queue is full; the caller's deadline bounds that.
    pub(crate) async fn append(&self, submission: Submission) -> Result<Ack, Error> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Job { submission, answer }).await.map_err(|_| Error::Stopped)?;
        answered.await.map_err(|_| Error::Stopped)?
    }
}

#[derive(Debug, Clone)]
struct Metrics {
    records: Counter<u64>,
    parked: Counter<u64>,
    repeated: Counter<u64>,
    refused: Counter<u64>,
    failures: Counter<u64>,
    batch: Histogram<u64>,
}

impl Metrics {
    fn new(meter: &Meter) -> Self {
        let counter =
            |name: &'static str, about: &'static str| meter.u64_counter(name).with_description(about).build();
        Self {
            records: counter("pavior.audit.append.records", "records that became durable"),
            parked: counter(
                "pavior.audit.append.parked",
                "events that were parked because their log is damaged: alarm on any",
            ),
            repeated: counter("pavior.audit.append.repeated", "records that were handed over again"),
            refused: counter(
                "pavior.audit.append.refused",
                "calls in which a number was skipped or stands for another event: alarm on any",
            ),
            failures: counter("pavior.audit.append.failures", "transactions that could not be written"),
            batch: meter
                .u64_histogram("pavior.audit.append.batch")
                .with_description("records in a transaction")
                .build(),
        }
    }
}

/// The task that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    store: AuditStore,
    signer: Arc<dyn CheckpointSigner>,
    queue: mpsc::Receiver<Job>,
    held_logs: HeldLogs,
    limits: Limits,
    metrics: Metrics,
    max_records: usize,
    max_wait: Duration,
}

/// A writer and the handle to it.
pub(crate) fn writer(
    config: &Config,
    store: AuditStore,
    signer: Arc<dyn CheckpointSigner>,
    held_logs: HeldLogs,
    meter: &Meter,
) -> (Appender, Writer) {
    let (send, receive) = mpsc::channel(config.max_queue);
    let writer = Writer {
        store,
        signer,
        queue: receive,
        held_logs,
        limits: Limits { records: config.max_parked_records, bytes: config.max_parked_bytes },
        metrics: Metrics::new(meter),
        max_records: config.max_batch_records,
        max_wait: Duration::from_micros(config.max_batch_wait_us),
    };
    (Appender { queue: send }, writer)
}

impl Writer {
    /// Writes until cancelled; then takes no more, writes what waits and ends.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let mut together = 1;
        let mut release = tokio::time::interval(RELEASE_INTERVAL);
        release.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut compare = tokio::time::interval(COMPARE_INTERVAL);
        compare.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let first = tokio::select! {
                biased;
                () = cancel.cancelled(), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
                _ = release.tick(), if !self.queue.is_closed() => {
                    self.held_logs.release_repaired().await;
                    continue;
                }
                _ = compare.tick(), if !self.queue.is_closed() => {
                    if let Err(error) = self.held_logs.compare().await {
                        let error = anyhow::Error::from(error);
                        tracing::warn!(%error, "audit logs cannot be compared with what was seen of them");
                    }
                    continue;
                }
                job = self.queue.recv() => job,
            };
            let Some(first) = first else { return };
            let jobs = self.gather(first, together).await;
            together = jobs.len();
            self.write(jobs).await;
        }
    }

    /// What waits, up to the limit. When several callers shared the last batch they are likely to be about to call
    /// again, so it is worth a moment to wait for as many; a lone caller waits for nobody.
    async fn gather(&mut self, first: Job, expected: usize) -> Vec<Job> {
        let mut records = first.submission.entries.len();
        let mut jobs = vec![first];
        let until = tokio::time::Instant::now() + self.max_wait;
        while records < self.max_records {
            let next = match self.queue.try_recv() {
                Ok(job) => Some(job),
                Err(_) if jobs.len() >= expected => None,
                Err(_) => tokio::time::timeout_at(until, self.queue.recv()).await.ok().flatten(),
            };
            let Some(job) = next else { break };
            records += job.submission.entries.len();
            jobs.push(job);
        }
        jobs
    }

    async fn write(&mut self, jobs: Vec<Job>) {
        let (submissions, answers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|j| (j.submission, j.answer)).unzip();
        let batch = Arc::new(Batch { submissions });
        match self.append(&batch).await {
            Ok(appended) => self.answer(&batch, appended, answers).await,
            Err(Error::ParkingFull { log, why }) => self.refuse(batch, answers, &log, &why).await,
            Err(error) => {
                self.metrics.failures.add(1, &[]);
                let error = anyhow::Error::from(error);
                tracing::error!(error = format!("{error:#}"), "the audit log cannot be written");
                for answer in answers {
                    let _ = answer.send(Err(Error::NotWritten));
                }
            }
        }
    }

    /// One damaged log must not stop the others: it is held, and the batch is written once more.
    async fn append(&mut self, batch: &Arc<Batch>) -> Result<AppendedBatch, Error> {
        let mut held = BTreeSet::new();
        loop {
            let observed = self.held_logs.observed();
            let appended = self.store.append_batch_unscoped(batch, observed, &self.signer, self.limits);
            let error = match appended.await {
                Ok(appended) => return Ok(appended),
                Err(error) => error,
            };
            // Which of the logs it is, the database does not say.
            if error.is_unreadable() && self.held_logs.hold_unreadable(&batch.logs()).await? {
                continue;
            }
            let (log, why) = error.damage()?;
            if !held.insert(log.clone()) {
                return Err(Error::inconsistent(&log, why));
            }
            self.held_logs.hold(&log, &why).await?;
        }
    }

    async fn answer(
        &mut self,
        batch: &Batch,
        appended: AppendedBatch,
        answers: Vec<oneshot::Sender<Result<Ack, Error>>>,
    ) {
        let AppendedBatch { answers: results, edges, records, parked } = appended;
        self.metrics.records.add(records as u64, &[]);
        self.metrics.batch.record(records as u64, &[]);
        self.held_logs.advance(edges);
        if parked > 0 {
            self.metrics.parked.add(parked as u64, &[]);
            if let Err(error) = self.held_logs.refresh().await {
                tracing::warn!(error = %anyhow::Error::from(error), "held audit logs cannot be read");
            }
        }
        for ((submission, result), answer) in batch.submissions.iter().zip(results).zip(answers) {
            let refused = |conflict| {
                let Producer { service, epoch } = submission.producer.clone();
                Error::Refused { service, epoch, conflict: Box::new(conflict) }
            };
            let result = result.map_err(refused);
            self.count(submission, &result);
            // A caller that is gone will ask again.
            let _ = answer.send(result);
        }
    }

    /// No more can be parked for a log: what concerns it is refused, with all else of the same producers, whose numbers
    /// would have a gap. The rest is written.
    async fn refuse(
        &mut self,
        batch: Arc<Batch>,
        answers: Vec<oneshot::Sender<Result<Ack, Error>>>,
        log: &str,
        why: &str,
    ) {
        self.metrics.failures.add(1, &[]);
        self.held_logs.parking_full(log);
        let concerned = batch.submissions.iter().filter(|s| s.entries.iter().any(|entry| entry.log == log));
        let producers: BTreeSet<&Producer> = concerned.map(|submission| &submission.producer).collect();
        let mut rest = Vec::new();
        for (submission, answer) in batch.submissions.iter().zip(answers) {
            if producers.contains(&submission.producer) {
                let _ = answer.send(Err(Error::ParkingFull { log: log.to_owned(), why: why.to_owned() }));
            } else {
                rest.push(Job { submission: submission.clone(), answer });
            }
        }
        if !rest.is_empty() {
            Box::pin(self.write(rest)).await;
        }
    }

    fn count(&self, submission: &Submission, result: &Result<Ack, Error>) {
        let service = || KeyValue::new("service", submission.producer.service.clone());
        match result {
            Ok(ack) if ack.repeated > 0 => self.metrics.repeated.add(ack.repeated as u64, &[service()]),
            Ok(_) => {}
            Err(error) => {
                self.metrics.refused.add(1, &[service()]);
                tracing::error!(%error, "audit records are refused until `pavior restore` was run");
            }
        }
    }
}
