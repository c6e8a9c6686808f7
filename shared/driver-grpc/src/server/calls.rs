//! The calls that run now, so that Cancel and Acknowledge find them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use pavior_driver::{LogStream, Progress, Sink, SinkClosed};
use pavior_proto::pavior::driver::v1 as pb;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::convert::encode_stream;
use crate::told::{Event, Told};
use crate::value::encode;

/// What the engine says to a checkpoint or a sign of life.
pub(super) type Answer = Result<(), SinkClosed>;

/// The largest log event.
const LOG_BYTES: usize = 1024 * 1024;

#[derive(Debug, Clone, Default)]
pub(super) struct Calls(Arc<Mutex<HashMap<String, Arc<Call>>>>);

#[derive(Debug)]
pub(super) struct Call {
    cancel: CancellationToken,
    /// Who waits for the engine's answer to which sequence.
    waiting: Mutex<HashMap<i64, oneshot::Sender<Answer>>>,
}

/// Takes the call off the list when it is over, however that comes.
#[derive(Debug)]
pub(super) struct Guard {
    calls: Calls,
    id: String,
    call: Arc<Call>,
}

impl Guard {
    pub(super) fn call(&self) -> Arc<Call> {
        self.call.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.calls.list().remove(&self.id);
    }
}

impl Calls {
    fn list(&self) -> MutexGuard<'_, HashMap<String, Arc<Call>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when a call with this id runs already.
    pub(super) fn enter(&self, id: &str, cancel: CancellationToken) -> Option<Guard> {
        let call = Arc::new(Call { cancel, waiting: Mutex::default() });
        let mut list = self.list();
        if list.contains_key(id) {
            return None;
        }
        list.insert(id.to_owned(), call.clone());
        Some(Guard { calls: self.clone(), id: id.to_owned(), call })
    }

    /// False when no such call runs.
    pub(super) fn cancel(&self, id: &str) -> bool {
        let found = self.list().get(id).cloned();
        found.is_some_and(|call| {
            call.cancel.cancel();
            true
        })
    }

    pub(super) fn acknowledge(&self, id: &str, sequence: i64, answer: Answer) {
        let found = self.list().get(id).cloned();
        if let Some(waiter) = found.and_then(|call| call.waiting().remove(&sequence)) {
            // A waiter that is gone has seen the stream close.
            let _ = waiter.send(answer);
        }
    }
}

impl Call {
    fn waiting(&self) -> MutexGuard<'_, HashMap<i64, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the driver tells goes into the stream of the call.
#[derive(Debug)]
pub(super) struct EventSink<T> {
    events: mpsc::Sender<Result<T, Status>>,
    call: Arc<Call>,
    acknowledged: bool,
    sequence: AtomicI64,
}

impl<T: Told> EventSink<T> {
    pub(super) fn new(events: mpsc::Sender<Result<T, Status>>, call: Arc<Call>, agreed: &[i32]) -> Self {
        let acknowledged = agreed.contains(&i32::from(pb::Capability::Acknowledge));
        Self { events, call, acknowledged, sequence: AtomicI64::new(0) }
    }

    async fn send(&self, event: Event) -> Answer {
        // Of these only an outcome may be what cannot be sent, and that does not come this way.
        let message = T::encode(event).map_err(|_| SinkClosed::NotKept)?;
        self.events.send(Ok(message)).await.map_err(|_| SinkClosed::ClaimLost)
    }

    /// Sends an event and returns once the engine has answered it.
    async fn ask(&self, event: impl FnOnce(i64) -> Event) -> Answer {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.acknowledged {
            return self.send(event(sequence)).await;
        }
        let (answer, answered) = oneshot::channel();
        self.call.waiting().insert(sequence, answer);
        let result = async {
            self.send(event(sequence)).await?;
            tokio::select! {
                answer = answered => answer.unwrap_or(Err(SinkClosed::ClaimLost)),
                () = self.events.closed() => Err(SinkClosed::ClaimLost),
            }
        };
        let result = result.await;
        self.call.waiting().remove(&sequence);
        result
    }
}

#[async_trait]
impl<T: Told> Sink for EventSink<T> {
    async fn progress(&self, progress: Progress) {
        let Progress { message, percent } = progress;
        let event = pb::Progress { message, percent: percent.map(i32::from) };
        // Where nobody listens, progress and logs are of no use.
        let _ = self.send(Event::Progress(event)).await;
    }

    async fn log(&self, stream: LogStream, bytes: &[u8]) {
        for piece in bytes.chunks(LOG_BYTES) {
            let event = pb::Log { stream: encode_stream(stream).into(), data: piece.to_vec() };
            let _ = self.send(Event::Log(event)).await;
        }
    }

    async fn checkpoint(&self, checkpoint: Value) -> Result<(), SinkClosed> {
        let state = encode(&checkpoint).map_err(|err| {
            // A checkpoint that cannot be kept must not be built upon: the driver stops here.
            tracing::error!(error = %err, "a checkpoint cannot be sent");
            SinkClosed::NotKept
        })?;
        self.ask(|sequence| Event::Checkpoint(pb::Checkpoint { sequence, state: Some(state) })).await
    }

    async fn heartbeat(&self) -> Result<(), SinkClosed> {
        self.ask(|sequence| Event::Heartbeat(pb::Heartbeat { sequence })).await
    }
}
