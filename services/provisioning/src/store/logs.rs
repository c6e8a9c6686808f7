//! Log lines: kept apart from transitions, in the order in which they were kept.

use pavior_store::TxFuture;
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::{Value, json};
use uuid::Uuid;

use super::entity::{event, log_chunk, operation};
use super::{Db, db};
use crate::error::{Error, Result};

/// A line, secrets redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// `stdout`, `stderr` or `driver`.
    pub stream: &'static str,
    /// Without its end.
    pub text: String,
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
        let (this, step) = (self.clone(), step.to_owned());
        let lines: Value = lines.iter().map(|line| json!([line.stream, line.text])).collect();
        self.store
            .upkeep("log lines of a step", move |tx| {
                let (this, lines, step) = (this.clone(), lines.clone(), step.clone());
                Box::pin(async move {
                    // The row lock orders commits as the numbers are, so that a reader misses none.
                    let next = operation::Entity::update_many()
                        .col_expr(operation::Column::LogSeq, Expr::col(operation::Column::LogSeq).add(1))
                        .filter(operation::Column::Id.eq(operation))
                        .exec_with_returning(tx)
                        .await
                        .map_err(db)?;
                    let Some(seq) = next.first().map(|row| row.log_seq) else { return Ok(()) };
                    let row = log_chunk::ActiveModel {
                        operation: Set(operation),
                        seq: Set(seq),
                        time: Set(this.now()),
                        step: Set(step),
                        attempt: Set(attempt),
                        lines: Set(lines),
                    };
                    log_chunk::Entity::insert(row).exec_without_returning(tx).await.map_err(db)?;
                    if seq > most {
                        log_chunk::Entity::delete_by_id((operation, seq - most))
                            .exec(tx)
                            .await
                            .map_err(db)?;
                    }
                    Ok(())
                }) as TxFuture<'_, _, Error>
            })
            .await
    }

    /// Events of an operation after a sequence number.
    pub async fn events_unscoped(
        &self,
        operation: Uuid,
        after: i64,
        limit: u64,
    ) -> Result<Vec<event::Model>> {
        event::Entity::find()
            .filter(event::Column::Operation.eq(operation))
            .filter(event::Column::Seq.gt(after))
            .order_by_asc(event::Column::Seq)
            .limit(limit)
            .all(self.store.read())
            .await
            .map_err(db)
    }

    /// Log chunks of an operation from a sequence number on.
    pub async fn log_chunks_unscoped(
        &self,
        operation: Uuid,
        from: i64,
        limit: u64,
    ) -> Result<Vec<log_chunk::Model>> {
        log_chunk::Entity::find()
            .filter(log_chunk::Column::Operation.eq(operation))
            .filter(log_chunk::Column::Seq.gte(from))
            .order_by_asc(log_chunk::Column::Seq)
            .limit(limit)
            .all(self.store.read())
            .await
            .map_err(db)
    }
}
