//! The log of decisions, written in batches from a queue, so that a decision does not wait for the disk. The audit record
//! of a change that rests on a decision is written in the transaction of the change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pavior_core::resource::Stored;
use pavior_store::{Store, StoreError};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::domain::decision::DecisionFields;
use crate::store;

/// Most decisions in one transaction.
const BATCH: usize = 200;
/// Longest pause between attempts to write.
const MAX_PAUSE: Duration = Duration::from_secs(5);

type Decision = Stored<DecisionFields>;

/// The queue in front of the table of decisions.
#[derive(Debug, Clone)]
pub(crate) struct DecisionLog {
    queue: mpsc::Sender<Decision>,
    taken: Arc<Mutex<mpsc::Receiver<Decision>>>,
    /// The last attempt to write has failed.
    failing: Arc<AtomicBool>,
}

impl DecisionLog {
    /// A log whose queue holds `room` decisions.
    pub(crate) fn new(room: usize) -> Self {
        let (queue, taken) = mpsc::channel(room.max(1));
        Self { queue, taken: Arc::new(Mutex::new(taken)), failing: Arc::default() }
    }

    /// Adds a decision; waits while the queue is full. Returns false when the log is closed.
    pub(crate) async fn add(&self, decision: Decision) -> bool {
        self.queue.send(decision).await.is_ok()
    }

    /// Whether the next decision would not have to wait until others can be written.
    ///
    /// # Errors
    /// What waits.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.queue.capacity() {
            0 if self.failing.load(Ordering::Relaxed) => {
                Err(format!("{} decisions wait to be written, as many as may", self.queue.max_capacity()))
            }
            _ => Ok(()),
        }
    }

    /// Writes decisions until cancelled, then those left in the queue.
    pub(crate) async fn run(&self, store: &Store, cancel: CancellationToken) {
        let mut taken = self.taken.lock().await;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let closing = tokio::select! {
                biased;
                count = taken.recv_many(&mut batch, BATCH) => count == 0,
                () = cancel.cancelled() => {
                    taken.close();
                    false
                }
            };
            if closing {
                return;
            }
            self.flush(store, &mut batch, &cancel).await;
        }
    }

    /// Tries until the batch is written; after cancellation only a few times more.
    async fn flush(&self, store: &Store, batch: &mut Vec<Decision>, cancel: &CancellationToken) {
        let (mut pause, mut left) = (Duration::from_millis(50), 3);
        while !batch.is_empty() {
            let written = write(store, batch).await;
            self.failing.store(written.is_err(), Ordering::Relaxed);
            match written {
                Ok(()) => batch.clear(),
                Err(error) if cancel.is_cancelled() && left == 0 => {
                    tracing::error!(%error, lost = batch.len(), "decisions cannot be written");
                    batch.clear();
                }
                Err(error) => {
                    tracing::warn!(%error, waiting = batch.len(), "decisions will be written again");
                    left -= u32::from(cancel.is_cancelled());
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }
}

async fn write(store: &Store, batch: &[Decision]) -> Result<(), StoreError> {
    let batch: Arc<[Decision]> = batch.into();
    store
        .upkeep("the log of decisions", move |tx| {
            let batch = batch.clone();
            Box::pin(async move { store::insert_decisions_unscoped(tx, &batch).await })
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_full_and_is_not_written_is_said() {
        let log = DecisionLog::new(1);
        assert_eq!(log.check(), Ok(()));
        let _waiting = log.queue.clone().try_reserve_owned().unwrap();
        assert_eq!(log.check(), Ok(()), "they are being written");
        log.failing.store(true, Ordering::Relaxed);
        assert_eq!(log.check(), Err("1 decisions wait to be written, as many as may".to_owned()));
    }
}
