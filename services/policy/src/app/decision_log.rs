//! The log of decisions, written in batches from a queue, so that a decision does not wait for the disk. The audit record
//! of a change that rests on a decision is written in the transaction of the change.

use std::sync::Arc;
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
}

impl DecisionLog {
    /// A log whose queue holds `room` decisions.
    pub(crate) fn new(room: usize) -> Self {
        let (queue, taken) = mpsc::channel(room.max(1));
        Self { queue, taken: Arc::new(Mutex::new(taken)) }
    }

    /// Adds a decision; waits while the queue is full. Returns false when the log is closed.
    pub(crate) async fn add(&self, decision: Decision) -> bool {
        self.queue.send(decision).await.is_ok()
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
