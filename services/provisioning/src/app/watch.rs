//! The stream of an operation: events and log lines in the order of their time, resumable at every line.

use std::collections::VecDeque;
use std::time::Duration;

use futures::Stream;
use pavior_auth::Permit;
use pavior_rpc::stream::{self, Start};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::App;
use super::response::OperationAnswer;
use crate::domain::operation::{Operation, OperationState, StateChange, StepProgress};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::store::{LogChunk, OperationView};

/// How often the database is asked while nothing is heard.
const POLL: Duration = Duration::from_secs(1);
/// The longest silence.
const BOOKMARK: Duration = Duration::from_secs(20);
/// Rows of one read.
const BATCH: u64 = 200;

/// Where a stream is: everything up to here has been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cursor {
    pub(crate) event: i64,
    pub(crate) chunk: i64,
    /// How many lines of the chunk.
    pub(crate) line: i64,
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub(crate) enum WatchEvent {
    /// The operation changed its state; it with that state, and whole where that is its last one.
    Operation(Box<OperationAnswer>),
    /// A step changed.
    Step(Box<StepProgress>),
    /// A line of a step.
    Line { step: String, attempt: i32, stream: String, text: String },
    /// Nothing.
    Bookmark,
}

/// A message of the stream.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) cursor: Cursor,
    pub(crate) time: OffsetDateTime,
    pub(crate) what: WatchEvent,
}

/// What is read and not told yet.
#[derive(Debug)]
struct Pending {
    cursor: Cursor,
    time: OffsetDateTime,
    what: Read,
}

/// What was read.
#[derive(Debug, Clone)]
enum Read {
    /// A change of the operation's state, which is looked at when it is sent.
    State(OperationState),
    Ready(WatchEvent),
}

impl Cursor {
    /// As it stands in a token.
    pub(crate) fn write(self) -> Value {
        json!([self.event, self.chunk, self.line])
    }

    /// Behind all that has happened.
    fn end(op: &Operation) -> Self {
        Self { event: op.event_seq, chunk: op.log_seq, line: i64::MAX }
    }

    /// The same, if the operation has come so far: a database that was set back has not.
    fn kept(self, op: &Operation) -> Result<Self> {
        match self.event <= op.event_seq && self.chunk <= op.log_seq {
            true => Ok(self),
            false => Err(stream::expired(format!("`{}` was set back since", op.name)).into()),
        }
    }

    /// Reads what [`Cursor::write`] wrote.
    pub(crate) fn read(value: &Value) -> Result<Self> {
        let number = |at: usize| value.get(at).and_then(Value::as_i64).filter(|number| *number >= 0);
        match (number(0), number(1), number(2)) {
            (Some(event), Some(chunk), Some(line)) => Ok(Self { event, chunk, line }),
            _ => Err(stream::not_ours().into()),
        }
    }
}

struct Watch {
    app: App,
    permit: Permit,
    operation: Uuid,
    cursor: Cursor,
    /// What happened before is left out.
    since: Option<OffsetDateTime>,
    changes: broadcast::Receiver<Uuid>,
    pending: VecDeque<Pending>,
    quiet_since: tokio::time::Instant,
    done: bool,
}

impl App {
    /// Streams what happens in an operation until nothing more happens to it by itself.
    pub(crate) async fn watch_operation(
        &self,
        permit: &Permit,
        action: &str,
        name: &str,
        start: Start,
    ) -> Result<impl Stream<Item = Result<Message>> + use<>> {
        let changes = self.engine.changes();
        let view = self.operation_view(permit, action, name).await?;
        let (cursor, since) = match start {
            Start::Beginning => (Cursor::default(), None),
            Start::Now => (Cursor::end(&view.op), None),
            Start::At(time) => (Cursor::default(), Some(time)),
            Start::Behind(place) => (Cursor::read(&place)?.kept(&view.op)?, None),
        };
        let watch = Watch {
            app: self.clone(),
            permit: permit.clone(),
            operation: view.op.id,
            cursor,
            since,
            changes,
            pending: VecDeque::new(),
            quiet_since: tokio::time::Instant::now(),
            done: false,
        };
        Ok(futures::stream::try_unfold(watch, |mut watch| async move {
            Ok::<_, Error>(watch.next().await?.map(|message| (message, watch)))
        }))
    }
}

impl Watch {
    async fn next(&mut self) -> Result<Option<Message>> {
        loop {
            if let Some(Pending { cursor, time, what }) = self.pending.pop_front() {
                if self.since.is_some_and(|since| time < since) {
                    continue;
                }
                self.quiet_since = tokio::time::Instant::now();
                let what = match what {
                    Read::Ready(what) => what,
                    Read::State(state) => match self.changed(state, cursor).await {
                        Ok(view) => {
                            let answer = self.app.with_response(&self.permit, view).await?;
                            WatchEvent::Operation(Box::new(answer))
                        }
                        // It was deleted, or is too old to be kept.
                        Err(Error::NotFound { .. }) => return Ok(None),
                        Err(error) => return Err(error),
                    },
                };
                return Ok(Some(Message { cursor, time, what }));
            }
            if self.done {
                return Ok(None);
            }
            // Read before the rows: what is committed before the end is then seen.
            let op = self.app.db.operation_by_id_unscoped(self.operation).await?;
            let rests = op.is_none_or(|op| op.state.rests());
            self.read().await?;
            if !self.pending.is_empty() {
                continue;
            }
            if rests {
                self.done = true;
                continue;
            }
            if self.quiet_since.elapsed() >= BOOKMARK {
                self.quiet_since = tokio::time::Instant::now();
                return Ok(Some(Message {
                    cursor: self.cursor,
                    time: self.app.db.now(),
                    what: WatchEvent::Bookmark,
                }));
            }
            self.pause().await;
        }
    }

    /// The operation as it was when it came into a state: whole where that is where it rests, else without what has events
    /// of its own. Whoever follows it from the beginning learns of its end last.
    async fn changed(&self, state: OperationState, cursor: Cursor) -> Result<OperationView> {
        use OperationState as S;
        let mut op = self.app.operation_by_id(self.operation).await?;
        if op.state == state && state.rests() && self.is_last(cursor).await? {
            let view = self.app.db.view_unscoped(op).await?;
            if view.op.state == state {
                return Ok(view);
            }
            // It was taken up between the two.
            op = view.op;
        }
        op.state = state;
        op.end_time = None;
        if !matches!(state, S::Failing | S::Cancelling | S::Compensating | S::Stuck) {
            (op.error, op.cancel_requested) = (None, false);
        }
        Ok(OperationView { op, steps: Vec::new() })
    }

    /// Whether the operation changed its state here for the last time: one that was stuck may be so again.
    async fn is_last(&self, cursor: Cursor) -> Result<bool> {
        let later = self.app.db.events_unscoped(self.operation, cursor.event, BATCH).await?;
        Ok(later.iter().all(|event| matches!(event.change, StateChange::Step(_))))
    }

    async fn pause(&mut self) {
        let poll = tokio::time::Instant::now() + POLL;
        Engine::heard_of(&mut self.changes, self.operation, poll).await;
    }

    /// Reads what is new and orders it by time; what each message covers is in its cursor.
    async fn read(&mut self) -> Result<()> {
        let db = &self.app.db;
        let events = db.events_unscoped(self.operation, self.cursor.event, BATCH).await?;
        let chunks = db.log_chunks_unscoped(self.operation, self.cursor.chunk, BATCH).await?;
        let (mut events, mut chunks) = (events.into_iter().peekable(), chunks.into_iter().peekable());
        loop {
            let event_first = match (events.peek(), chunks.peek()) {
                (Some(event), Some(chunk)) => event.time <= chunk.time,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return Ok(()),
            };
            if event_first {
                let Some(event) = events.next() else { return Ok(()) };
                self.cursor.event = event.seq;
                let what = match event.change {
                    StateChange::Operation(state) => Read::State(state),
                    StateChange::Step(step) => Read::Ready(WatchEvent::Step(step)),
                };
                self.pending.push_back(Pending { cursor: self.cursor, time: event.time, what });
            } else {
                let Some(chunk) = chunks.next() else { return Ok(()) };
                self.lines(chunk);
            }
        }
    }

    fn lines(&mut self, chunk: LogChunk) {
        let sent = if chunk.seq == self.cursor.chunk { self.cursor.line } else { 0 };
        for (index, (stream, text)) in (1_i64..).zip(chunk.lines) {
            if index <= sent {
                continue;
            }
            (self.cursor.chunk, self.cursor.line) = (chunk.seq, index);
            let what = WatchEvent::Line { step: chunk.step.clone(), attempt: chunk.attempt, stream, text };
            self.pending.push_back(Pending {
                cursor: self.cursor,
                time: chunk.time,
                what: Read::Ready(what),
            });
        }
    }
}
