//! Events and log lines of operations: kept apart, each in the order in which they were kept.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::operation::{Event, OperationState, StateChange};
use crate::store::entity::{event, log_chunk, operation};
use crate::store::prelude::*;

/// A line, secrets redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// `stdout`, `stderr` or `driver`.
    pub stream: &'static str,
    /// Without its end.
    pub text: String,
}

/// Lines that a step wrote, secrets redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Its number.
    pub seq: i64,
    /// When it was kept.
    pub time: OffsetDateTime,
    /// The id of the step in the plan.
    pub step: String,
    /// The attempt that wrote them.
    pub attempt: i32,
    /// The stream and the text of each line.
    pub lines: Vec<(String, String)>,
}

impl From<log_chunk::Model> for LogChunk {
    fn from(row: log_chunk::Model) -> Self {
        let log_chunk::Model { operation: _, seq, time, step, attempt, lines } = row;
        Self { seq, time, step, attempt, lines: lines.0 }
    }
}

impl Db {
    /// Keeps lines of a step; of the operation's batches the last `most`.
    pub async fn append_log_unscoped(
        &self,
        operation: Uuid,
        step: &str,
        attempt: i32,
        lines: &[LogLine],
        most: i64,
    ) -> Result<()> {
        let lines = lines.iter().map(|line| (line.stream.to_owned(), line.text.clone()));
        let input = (step.to_owned(), Typed(lines.collect::<Vec<_>>()));
        self.upkeep("log lines of a step", input, move |this, tx, (step, lines)| {
            Box::pin(async move {
                // The row lock orders commits as the numbers are, so that a reader misses none.
                let next = operation::Entity::update_many()
                    .col_expr(operation::Column::LogSeq, Expr::col(operation::Column::LogSeq).add(1))
                    .filter(operation::Column::Id.eq(operation))
                    .exec_with_returning(tx)
                    .await?;
                let Some(seq) = next.first().map(|row| row.log_seq) else { return Ok(()) };
                let (step, lines) = (step.clone(), lines.clone());
                let row = log_chunk::Model { operation, seq, time: this.now(), step, attempt, lines };
                let row = row.into_active_model().reset_all();
                log_chunk::Entity::insert(row).exec_without_returning(tx).await?;
                if seq > most {
                    log_chunk::Entity::delete_by_id((operation, seq - most)).exec(tx).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Events of an operation after a sequence number.
    pub async fn events_unscoped(&self, operation: Uuid, after: i64, limit: u64) -> Result<Vec<Event>> {
        event::Entity::find()
            .filter(event::Column::Operation.eq(operation))
            .filter(event::Column::Seq.gt(after))
            .order_by_asc(event::Column::Seq)
            .limit(limit)
            .all(self.store.read())
            .await?
            .into_iter()
            .map(event_of)
            .collect()
    }

    /// Log chunks of an operation from a sequence number on.
    pub async fn log_chunks_unscoped(&self, operation: Uuid, from: i64, limit: u64) -> Result<Vec<LogChunk>> {
        let rows = log_chunk::Entity::find()
            .filter(log_chunk::Column::Operation.eq(operation))
            .filter(log_chunk::Column::Seq.gte(from))
            .order_by_asc(log_chunk::Column::Seq)
            .limit(limit);
        self.all(rows).await
    }
}

/// The kind of the events of an operation's own state; those of others are of its steps.
pub(crate) const OF_OPERATION: &str = "operation";
/// The kind of the events of steps.
pub(crate) const OF_STEP: &str = "step";

fn event_of(row: event::Model) -> Result<Event> {
    let event::Model { operation, seq, time, kind, step: _, body } = row;
    let corrupt = || Error::Corrupt(format!("event {seq} of operation `{operation}`"));
    let change = match kind.as_str() {
        OF_OPERATION => {
            let state = body.get("state").and_then(Value::as_str).and_then(OperationState::parse);
            StateChange::Operation(state.ok_or_else(corrupt)?)
        }
        _ => StateChange::Step(Box::new(serde_json::from_value(body).map_err(|_| corrupt())?)),
    };
    Ok(Event { seq, time, change })
}
