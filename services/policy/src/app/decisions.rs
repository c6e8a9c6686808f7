//! The log of decisions: taken from a queue and written in batches, so that a decision does not wait for the disk.
//! What a decision led to is recorded with the change itself, in the change's own transaction.

use std::sync::Arc;
use std::time::Duration;

use pavior_store::{Store, StoreError};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::domain::decision::DecisionFields;
use crate::domain::record::Stored;
use crate::store;

/// Most decisions in one transaction.
const BATCH: usize = 200;
/// A decision with its name.
type Decision = Stored<DecisionFields>;

const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Takes decisions.
#[derive(Debug, Clone)]
pub(crate) struct DecisionLog {
    queue: mpsc::Sender<Decision>,
    taken: Arc<Mutex<mpsc::Receiver<Decision>>>,
}

impl DecisionLog {
    /// A log with room for so many decisions that wait.
    pub(crate) fn new(room: usize) -> Self {
        let (queue, taken) = mpsc::channel(room.max(1));
        Self { queue, taken: Arc::new(Mutex::new(taken)) }
    }

    /// Adds a decision; waits while the queue is full. False when the log has been closed.
    pub(crate) async fn add(&self, decision: Decision) -> bool {
        self.queue.send(decision).await.is_ok()
    }

    /// Writes what comes until cancelled, then what is left.
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

    /// Tries until it is written; after cancellation a few times more.
    async fn flush(&self, store: &Store, batch: &mut Vec<Decision>, cancel: &CancellationToken) {
        let (mut pause, mut left) = (Duration::from_millis(50), 3);
        while !batch.is_empty() {
            match write(store, batch).await {
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
