use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value;

use crate::{Failure, FailureCode};

/// Where a running call reports to. Awaited, so that a slow reader slows the driver down instead of filling memory.
#[async_trait]
pub trait Sink: Send + Sync {
    /// A sentence about where the work is.
    async fn progress(&self, progress: Progress);
    /// Output of the work, secrets already redacted.
    async fn log(&self, stream: LogStream, bytes: &[u8]);
    /// State to resume from; returns once it is durable. An error means that it is not, and says why: stop.
    async fn checkpoint(&self, checkpoint: Value) -> Result<(), SinkClosed>;
    /// Sign of life. An error means that nobody waits for the outcome any more: stop.
    async fn heartbeat(&self) -> Result<(), SinkClosed>;
}

/// Where the work is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// For people, lower case.
    pub message: String,
    /// 0 to 100, where the driver can tell.
    pub percent: Option<u8>,
}

impl Progress {
    /// A sentence without a percentage.
    #[must_use]
    pub fn message(message: impl Into<String>) -> Self {
        Self { message: message.into(), percent: None }
    }
}

/// Which stream a log line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// Standard output of the work.
    Stdout,
    /// Standard error of the work.
    Stderr,
    /// The driver itself.
    System,
}

/// Why a driver must not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SinkClosed {
    /// The engine does not listen any more: another worker has the step.
    #[error("the claim on this step is lost")]
    ClaimLost,
    /// The claim holds, and what was to be kept cannot be: an error that trying again does not mend.
    #[error("the checkpoint cannot be kept")]
    NotKept,
}

impl From<SinkClosed> for Failure {
    fn from(closed: SinkClosed) -> Self {
        let code = match closed {
            SinkClosed::ClaimLost => FailureCode::Fenced,
            SinkClosed::NotKept => FailureCode::Internal,
        };
        Self::new(code, closed.to_string())
    }
}

/// Drops everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullSink;

#[async_trait]
impl Sink for NullSink {
    async fn progress(&self, _progress: Progress) {}
    async fn log(&self, _stream: LogStream, _bytes: &[u8]) {}
    async fn checkpoint(&self, _checkpoint: Value) -> Result<(), SinkClosed> {
        Ok(())
    }
    async fn heartbeat(&self) -> Result<(), SinkClosed> {
        Ok(())
    }
}

/// Keeps everything in memory: for tests and for the conformance kit.
#[derive(Debug, Default)]
pub struct MemorySink {
    inner: Mutex<MemoryLog>,
    changed: tokio::sync::Notify,
}

#[derive(Debug, Default, Clone)]
struct MemoryLog {
    progress: Vec<Progress>,
    logs: Vec<(LogStream, Vec<u8>)>,
    checkpoints: Vec<Value>,
}

impl MemorySink {
    /// An empty sink.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn update(&self, change: impl FnOnce(&mut MemoryLog)) {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
    }

    fn read<T>(&self, read: impl FnOnce(&MemoryLog) -> T) -> T {
        read(&self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All log bytes as text, in order.
    #[must_use]
    pub fn log_text(&self) -> String {
        self.read(|log| {
            log.logs.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect::<String>()
        })
    }

    /// Progress sentences in order.
    #[must_use]
    pub fn progress_messages(&self) -> Vec<String> {
        self.read(|log| log.progress.iter().map(|progress| progress.message.clone()).collect())
    }

    /// Checkpoints in order.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<Value> {
        self.read(|log| log.checkpoints.clone())
    }

    /// Everything that was reported, as one text: where a leaked secret would show.
    #[must_use]
    pub fn everything(&self) -> String {
        let rest = self.read(|log| format!("{:?}{:?}", log.progress, log.checkpoints));
        self.log_text() + &rest
    }

    /// Returns when the log holds `needle`.
    pub async fn logged(&self, needle: &str) {
        loop {
            let changed = self.changed.notified();
            if self.log_text().contains(needle) {
                return;
            }
            changed.await;
        }
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn progress(&self, progress: Progress) {
        self.update(|log| log.progress.push(progress));
    }
    async fn log(&self, stream: LogStream, bytes: &[u8]) {
        self.update(|log| log.logs.push((stream, bytes.to_vec())));
    }
    async fn checkpoint(&self, checkpoint: Value) -> Result<(), SinkClosed> {
        self.update(|log| log.checkpoints.push(checkpoint));
        Ok(())
    }
    async fn heartbeat(&self) -> Result<(), SinkClosed> {
        Ok(())
    }
}
