//! Where a driver reports to: log lines are redacted and kept in batches, checkpoints are durable before they are
//! acknowledged, a lost claim closes the sink.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pavior_driver::{LogStream, Progress, RedactedLog, Redactor, Sink, SinkClosed, async_trait};
use pavior_store::ErrorKind;
use serde_json::Value;

use super::Engine;
use crate::error::{Error, Result};
use crate::store::{LogLine, StepRef};

/// Lines that are kept together.
const BATCH: usize = 100;
/// The longest line; what is over begins a new one, after secrets are taken out of it.
const MAX_LINE: usize = 16 * 1024;

/// The pauses between attempts to keep a checkpoint.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// The sink of one call.
pub(crate) struct EngineSink {
    engine: Engine,
    reference: StepRef,
    step: String,
    attempt: i32,
    redactor: Redactor,
    state: Mutex<State>,
    writing: tokio::sync::Mutex<()>,
}

struct State {
    lines: Vec<LogLine>,
    progress: Option<String>,
    log: RedactedLog,
    /// The beginning of each stream's next line.
    partial: [Vec<u8>; 3],
}

fn stream_name(stream: LogStream) -> (usize, &'static str) {
    match stream {
        LogStream::Stdout => (0, "stdout"),
        LogStream::Stderr => (1, "stderr"),
        LogStream::System => (2, "driver"),
    }
}

impl State {
    /// Adds text without secrets, in lines.
    fn split(&mut self, stream: LogStream, text: &[u8]) {
        let (index, name) = stream_name(stream);
        let mut pending = std::mem::take(&mut self.partial[index]);
        for byte in text {
            if *byte == b'\n' || pending.len() >= MAX_LINE {
                self.lines.push(line(name, &pending));
                pending.clear();
            }
            if *byte != b'\n' {
                pending.push(*byte);
            }
        }
        self.partial[index] = pending;
    }

    /// Nothing more comes: what has no end of line is one, too.
    fn end_lines(&mut self) {
        for stream in [LogStream::Stdout, LogStream::Stderr, LogStream::System] {
            let (index, name) = stream_name(stream);
            let rest = std::mem::take(&mut self.partial[index]);
            if !rest.is_empty() {
                self.lines.push(line(name, &rest));
            }
        }
    }
}

fn line(stream: &'static str, bytes: &[u8]) -> LogLine {
    let text = String::from_utf8_lossy(bytes);
    // PostgreSQL keeps no NUL.
    LogLine { stream, text: text.trim_end_matches('\r').replace('\0', "\u{fffd}") }
}

impl EngineSink {
    pub(crate) fn new(
        engine: &Engine,
        reference: StepRef,
        step: &str,
        attempt: i32,
        redactor: Redactor,
    ) -> Self {
        Self {
            engine: engine.clone(),
            reference,
            step: step.to_owned(),
            attempt,
            state: Mutex::new(State {
                lines: Vec::new(),
                progress: None,
                log: RedactedLog::new(&redactor),
                partial: Default::default(),
            }),
            redactor,
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Keeps that the thing is gone which the step takes the place of, before anything takes that place.
    pub(crate) async fn former_gone(&self) -> std::result::Result<(), SinkClosed> {
        durable(&self.step, || self.engine.db.former_gone_unscoped(self.reference)).await
    }

    pub(crate) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes; returns whether a batch is full.
    fn add(&self, stream: LogStream, bytes: &[u8]) -> bool {
        let mut state = self.state();
        let told = state.log.push(stream, bytes);
        state.split(stream, &told);
        state.lines.len() >= BATCH
    }

    /// Keeps what has come so far. At the end, unfinished lines too; a sentence about the progress of a call that is
    /// over is of no use any more.
    pub(crate) async fn flush(&self, end: bool) {
        // One at a time, so that batches keep their order.
        let _writing = self.writing.lock().await;
        let lines = {
            let mut state = self.state();
            let progress = state.progress.take();
            if let (Some(text), false) = (progress, end) {
                state.lines.push(LogLine { stream: "driver", text });
            }
            if end {
                for (stream, rest) in state.log.finish() {
                    state.split(stream, &rest);
                }
                state.end_lines();
            }
            std::mem::take(&mut state.lines)
        };
        if lines.is_empty() {
            return;
        }
        let db = &self.engine.db;
        let most = self.engine.config.max_log_chunks_per_operation;
        match db.append_log_unscoped(self.reference.operation, &self.step, self.attempt, &lines, most).await {
            Ok(()) => self.engine.changed(self.reference.operation),
            Err(error) => {
                tracing::warn!(step = self.step, %error, lines = lines.len(), "log lines were lost")
            }
        }
    }
}

/// Keeps something under the claim. A database that is away is asked again until it answers: the engine drops the call
/// when its lease or its time is over, and to write the same again under the same fence is safe even where it is not
/// known whether the first time counts.
async fn durable<F>(step: &str, keep: impl Fn() -> F) -> std::result::Result<(), SinkClosed>
where
    F: Future<Output = Result<bool>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match keep().await {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(SinkClosed::ClaimLost),
            Err(error) if passes(&error) => tracing::warn!(step, %error, "a checkpoint is not kept yet"),
            Err(error) => {
                tracing::error!(step, error = ?error, "a checkpoint cannot be kept");
                return Err(SinkClosed::NotKept);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Whether trying again may help.
fn passes(error: &Error) -> bool {
    let (Error::Store(error) | Error::Resource(pavior_resource::Error::Store(error))) = error else {
        return false;
    };
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Serialization | ErrorKind::Unknown)
}

#[async_trait]
impl Sink for EngineSink {
    async fn progress(&self, progress: Progress) {
        let text = self.redactor.text(&progress.message);
        let text = match progress.percent {
            Some(percent) => format!("{text} ({percent} %)"),
            None => text,
        };
        self.state().progress = Some(text);
    }

    async fn log(&self, stream: LogStream, bytes: &[u8]) {
        if self.add(stream, bytes) {
            self.flush(false).await;
        }
    }

    async fn checkpoint(&self, checkpoint: Value) -> std::result::Result<(), SinkClosed> {
        let checkpoint = self.redactor.value(&checkpoint);
        let db = &self.engine.db;
        durable(&self.step, || db.checkpoint_unscoped(self.reference, checkpoint.clone())).await
    }

    async fn heartbeat(&self) -> std::result::Result<(), SinkClosed> {
        // The engine renews the lease itself; a driver that asks learns whether it still holds.
        let lease = super::micros(self.engine.config.lease_ms);
        match self.engine.db.heartbeat_unscoped(self.reference, lease).await {
            Ok((true, _)) => Ok(()),
            Ok((false, _)) => Err(SinkClosed::ClaimLost),
            // The database may be back before the lease ends.
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use pavior_store::StoreError;

    use super::*;

    async fn told(answers: Vec<Result<bool>>) -> (std::result::Result<(), SinkClosed>, usize) {
        let left = RefCell::new(answers.into_iter());
        let told = durable("a", || std::future::ready(left.borrow_mut().next().unwrap())).await;
        (told, left.into_inner().len())
    }

    fn away() -> Result<bool> {
        Err(StoreError::Busy.into())
    }

    #[tokio::test]
    async fn a_database_that_is_away_is_no_lost_claim() {
        assert_eq!(told(vec![away(), away(), Ok(true)]).await, (Ok(()), 0));
        assert_eq!(told(vec![away(), Ok(false)]).await, (Err(SinkClosed::ClaimLost), 0));
        let corrupt = Err(Error::Corrupt("x".to_owned()));
        assert_eq!(told(vec![corrupt, Ok(true)]).await, (Err(SinkClosed::NotKept), 1));
    }
}
