//! The audit outbox: a change and its audit event commit together, a relay delivers the events later.
//!
//! Each event gets the next number of its (service, epoch), without gaps, in the transaction of the change, so that
//! the audit service can prove that nothing was left out. Numbers without gaps need an order among transactions: on
//! PostgreSQL they wait for one another from the append to the commit. So [`Store::change`] appends last.
//!
//! The epoch is the time at which the counter was made, so a database that is made anew (or restored, see
//! [`new_epoch`]) never gives the same position to another event.

mod relay;

pub use relay::{BoxError, Relay};

use crate::{Store, StoreError, Tx, from_micros, micros};
use pavior_core::audit::AuditEvent;
use pavior_core::clock::Clock;
use sea_orm::{ConnectionTrait, QueryResult, Statement};
use sea_orm_migration::prelude::{
    ColumnDef, DbErr, Index, MigrationName, MigrationTrait, SchemaManager, Table,
};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

/// Limits of one service's outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most events that may wait.
    pub max_rows: i64,
    /// Longest time that an event may wait.
    pub max_age: Duration,
    /// Most events in one delivery.
    pub batch: u64,
    /// How often to look for events of other processes; own commits wake the relay at once.
    pub poll: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_rows: 100_000,
            max_age: Duration::from_secs(15 * 60),
            batch: 500,
            poll: Duration::from_secs(1),
        }
    }
}

/// Who appends.
#[derive(Debug, Clone)]
pub struct OutboxContext {
    /// Role of the service, such as `catalog`.
    pub service: String,
    /// This process among the replicas of the service.
    pub instance: String,
    /// When to refuse.
    pub limits: Limits,
    /// For the age of events.
    pub clock: Arc<dyn Clock>,
}

impl OutboxContext {
    /// With the default limits.
    pub fn new(service: impl Into<String>, instance: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        Self { service: service.into(), instance: instance.into(), limits: Limits::default(), clock }
    }
}

/// An event with its position.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxRow {
    /// Role of the service.
    pub service: String,
    /// The process that appended it.
    pub instance: String,
    /// See the module's text.
    pub epoch: i64,
    /// From 1, without gaps in the epoch.
    pub seq: i64,
    /// When it was appended.
    pub create_time: OffsetDateTime,
    /// The event.
    pub event: AuditEvent,
}

/// How far the relay is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Events that wait.
    pub rows: i64,
    /// Age of the oldest.
    pub oldest: Option<Duration>,
}

/// Appends an event to the transaction and returns its number. Fails with [`StoreError::OutboxFull`] when the
/// events that wait are too many or too old.
pub(crate) async fn append(tx: &Tx, event: &AuditEvent, context: &OutboxContext) -> Result<i64, StoreError> {
    let backend = tx.get_database_backend();
    let now = context.clock.now();
    let sql = "INSERT INTO outbox_epoch (service, epoch, last_seq) VALUES ($1, $2, 1) \
               ON CONFLICT (service) DO UPDATE SET last_seq = outbox_epoch.last_seq + 1 RETURNING epoch, last_seq";
    let values: [sea_orm::Value; 2] = [context.service.clone().into(), micros(now).into()];
    let row = tx
        .query_one_raw(Statement::from_sql_and_values(backend, sql, values))
        .await?
        .ok_or_else(|| StoreError::Corrupt("outbox counter gave no number".to_owned()))?;
    let (epoch, seq): (i64, i64) = (row.try_get("", "epoch")?, row.try_get("", "last_seq")?);
    refuse_if_full(tx, context, epoch, seq, now).await?;

    let text = serde_json::to_string(event)
        .map_err(|e| StoreError::Corrupt(format!("audit event cannot be written as JSON: {e}")))?;
    let sql = "INSERT INTO outbox (service, epoch, seq, instance, create_time, event) VALUES ($1, $2, $3, $4, $5, $6)";
    let values: [sea_orm::Value; 6] = [
        context.service.clone().into(),
        epoch.into(),
        seq.into(),
        context.instance.clone().into(),
        micros(now).into(),
        text.into(),
    ];
    tx.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    Ok(seq)
}

async fn refuse_if_full(
    tx: &Tx,
    context: &OutboxContext,
    epoch: i64,
    seq: i64,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    // Deliveries delete from the front, so the first row tells both how many wait and for how long.
    let sql =
        "SELECT epoch, seq, create_time FROM outbox WHERE service = $1 ORDER BY service, epoch, seq LIMIT 1";
    let values = [context.service.clone().into()];
    let Some(row) =
        tx.query_one_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?
    else {
        return Ok(());
    };
    let (oldest_epoch, oldest_seq): (i64, i64) = (row.try_get("", "epoch")?, row.try_get("", "seq")?);
    let rows = if oldest_epoch == epoch { seq - oldest_seq } else { seq - 1 };
    let age = micros(now) - row.try_get::<i64>("", "create_time")?;
    let max_age = i64::try_from(context.limits.max_age.as_micros()).unwrap_or(i64::MAX);
    if rows >= context.limits.max_rows || age > max_age {
        return Err(StoreError::OutboxFull { rows, oldest_seconds: age / 1_000_000 });
    }
    Ok(())
}

/// Begins a new epoch, whose numbers start at 1. To be called after a database was restored from a backup: numbers
/// given since the backup are then not given a second time. Returns the epoch.
pub async fn new_epoch(store: &Store, service: &str, now: OffsetDateTime) -> Result<i64, StoreError> {
    let (service, now) = (service.to_owned(), micros(now));
    store
        .upkeep("outbox: a new epoch", move |tx| {
            let service = service.clone();
            Box::pin(async move {
                let sql = "INSERT INTO outbox_epoch (service, epoch, last_seq) VALUES ($1, $2, 0) \
                           ON CONFLICT (service) DO UPDATE SET last_seq = 0, epoch = \
                           CASE WHEN outbox_epoch.epoch >= $3 THEN outbox_epoch.epoch + 1 ELSE $4 END RETURNING epoch";
                let values: [sea_orm::Value; 4] = [service.into(), now.into(), now.into(), now.into()];
                let row = tx
                    .query_one_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values))
                    .await?
                    .ok_or_else(|| StoreError::Corrupt("outbox counter gave no epoch".to_owned()))?;
                Ok::<_, StoreError>(row.try_get("", "epoch")?)
            })
        })
        .await
}

/// How far the relay is behind, for health and metrics.
pub async fn lag(store: &Store, service: &str, now: OffsetDateTime) -> Result<Lag, StoreError> {
    let sql = "SELECT COUNT(*) AS waiting, MIN(create_time) AS oldest FROM outbox WHERE service = $1";
    let statement = Statement::from_sql_and_values(store.backend(), sql, [service.into()]);
    let Some(row) = store.read().query_one_raw(statement).await? else { return Ok(Lag::default()) };
    let oldest: Option<i64> = row.try_get("", "oldest")?;
    let age = |t: i64| Duration::from_micros(u64::try_from(micros(now) - t).unwrap_or_default());
    Ok(Lag { rows: row.try_get("", "waiting")?, oldest: oldest.map(age) })
}

/// The first events that wait, in order; all of one epoch and one instance.
pub async fn pending(store: &Store, service: &str, limit: u64) -> Result<Vec<OutboxRow>, StoreError> {
    let sql = "SELECT epoch, seq, instance, create_time, event FROM outbox WHERE service = $1 \
               ORDER BY service, epoch, seq LIMIT $2";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let statement = Statement::from_sql_and_values(store.backend(), sql, [service.into(), limit.into()]);
    let mut rows: Vec<OutboxRow> = Vec::new();
    for row in store.read().query_all_raw(statement).await? {
        let row = read_row(service, &row)?;
        if rows.first().is_some_and(|first| first.epoch != row.epoch || first.instance != row.instance) {
            break;
        }
        rows.push(row);
    }
    Ok(rows)
}

fn read_row(service: &str, row: &QueryResult) -> Result<OutboxRow, StoreError> {
    let (epoch, seq): (i64, i64) = (row.try_get("", "epoch")?, row.try_get("", "seq")?);
    let corrupt = |what: &str| StoreError::Corrupt(format!("outbox event {service}/{epoch}/{seq}: {what}"));
    let event: String = row.try_get("", "event")?;
    Ok(OutboxRow {
        service: service.to_owned(),
        instance: row.try_get("", "instance")?,
        epoch,
        seq,
        create_time: from_micros(row.try_get("", "create_time")?)
            .ok_or_else(|| corrupt("time out of range"))?,
        event: serde_json::from_str(&event).map_err(|_| corrupt("not an audit event"))?,
    })
}

/// Forgets the events of an epoch up to `seq`, after they were delivered.
pub async fn delivered(store: &Store, service: &str, epoch: i64, seq: i64) -> Result<(), StoreError> {
    let service = service.to_owned();
    store
        .upkeep("outbox: events that were delivered", move |tx| {
            let service = service.clone();
            Box::pin(async move {
                let sql = "DELETE FROM outbox WHERE service = $1 AND epoch = $2 AND seq <= $3";
                let values: [sea_orm::Value; 3] = [service.into(), epoch.into(), seq.into()];
                tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values))
                    .await?;
                Ok::<_, StoreError>(())
            })
        })
        .await
}

/// The migration that makes the tables; put it into the service's list.
pub fn migration() -> Box<dyn MigrationTrait> {
    Box::new(CreateOutbox)
}

struct CreateOutbox;

impl MigrationName for CreateOutbox {
    fn name(&self) -> &str {
        "pavior_store_outbox_1"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for CreateOutbox {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let epochs = Table::create()
            .table("outbox_epoch")
            .col(ColumnDef::new("service").text().not_null().primary_key())
            .col(ColumnDef::new("epoch").big_integer().not_null())
            .col(ColumnDef::new("last_seq").big_integer().not_null())
            .to_owned();
        manager.create_table(epochs).await?;
        let rows = Table::create()
            .table("outbox")
            .col(ColumnDef::new("service").text().not_null())
            .col(ColumnDef::new("epoch").big_integer().not_null())
            .col(ColumnDef::new("seq").big_integer().not_null())
            .col(ColumnDef::new("instance").text().not_null())
            .col(ColumnDef::new("create_time").big_integer().not_null())
            .col(ColumnDef::new("event").text().not_null())
            .primary_key(Index::create().col("service").col("epoch").col("seq"))
            .to_owned();
        manager.create_table(rows).await
    }
}
