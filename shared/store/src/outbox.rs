//! The audit outbox: a change and its audit event commit together, a relay delivers the events later.
//!
//! Each event gets the next number of its (service, epoch), without gaps, in the transaction of the change, so that
//! the audit service can prove that nothing was left out. Numbers without gaps need an order among transactions: on
//! PostgreSQL they wait for one another from the append to the commit. So [`Store::change`] appends last.
//!
//! The epoch is the time at which the counter was made, so a database that is made anew (or restored, see
//! [`begin_anew`]) never gives the same position to another event.

mod migration;
mod relay;
mod share;
mod standing;

pub use migration::migrations;
pub use relay::{BoxError, Delivery, Progress, Relay};
pub use standing::{
    Apart, Difference, History, Position, Recorded, Standing, Waiting, begin_anew, compare, position, waiting,
};

use crate::{Store, StoreError, Tx, from_micros, micros};
use pavior_core::audit::AuditEvent;
use pavior_core::clock::Clock;
use sea_orm::{ConnectionTrait, QueryResult, Statement};
use std::collections::BTreeMap;
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
    /// Most events of one organization that may wait; less than `max_rows`, so that no organization stops the others.
    pub max_organization_rows: i64,
    /// Most bytes of events of one organization that may wait.
    pub max_organization_bytes: i64,
    /// Most events in one delivery.
    pub batch: u64,
    /// Most bytes of events that are read for one delivery; the first event is read whatever its size.
    pub batch_bytes: usize,
    /// How long an event may wait before the outbox counts as standing still.
    pub max_stall: Duration,
    /// How often to look for events of other processes; own commits wake the relay at once.
    pub poll: Duration,
}

impl Limits {
    /// For what has to be recorded whatever waits: beside services that do not run, nothing is delivered.
    pub fn endless() -> Self {
        Self {
            max_rows: i64::MAX,
            max_age: Duration::MAX,
            max_organization_rows: i64::MAX,
            max_organization_bytes: i64::MAX,
            ..Self::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_rows: 100_000,
            max_age: Duration::from_secs(15 * 60),
            max_organization_rows: 20_000,
            max_organization_bytes: 32 * 1024 * 1024,
            batch: 500,
            batch_bytes: 4 * 1024 * 1024,
            max_stall: Duration::from_secs(30),
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
    /// Whether its history is that of the audit log, as far as is known: the store's own, whoever else appends to it.
    history: History,
}

impl OutboxContext {
    /// With the default limits.
    pub fn new(
        store: &Store,
        service: impl Into<String>,
        instance: impl Into<String>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            service: service.into(),
            instance: instance.into(),
            limits: Limits::default(),
            clock,
            history: store.history().clone(),
        }
    }

    /// What is known of the histories.
    pub fn history(&self) -> &History {
        &self.history
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
    /// The organization whose log it belongs to; `pavior` for the installation's.
    pub organization: String,
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

/// Whether an event may be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// When there is no room for it: then what it tells of does not happen.
    Needed,
    /// Not for want of room: what it tells of has happened, outside of the database. Whoever brings about such things
    /// asks [`has_room`] before, which bounds how many there are.
    Given,
}

/// Appends an event to the transaction and returns its number. Fails with [`StoreError::OutboxFull`] when the events
/// that wait are too many or too old, and with [`StoreError::OrganizationOutboxFull`] when those of its organization
/// are too many, unless there is [`Room::Given`]. Fails with [`StoreError::Apart`] while the histories of the outbox and
/// of the audit log do not fit.
pub(crate) async fn append(
    tx: &Tx,
    event: &AuditEvent,
    context: &OutboxContext,
    room: Room,
) -> Result<i64, StoreError> {
    let backend = tx.get_database_backend();
    if let Some(apart) = context.history.apart() {
        return Err(StoreError::Apart(apart));
    }
    let now = context.clock.now();
    // Before the number is taken: from there on others wait.
    let event = event.clone().bounded();
    let organization = event.organization().to_owned();
    let text = serde_json::to_string(&event)
        .map_err(|e| StoreError::Corrupt(format!("audit event cannot be written as JSON: {e}")))?;
    let bytes = i64::try_from(text.len()).unwrap_or(i64::MAX);
    let sql = "INSERT INTO outbox_epoch (service, epoch, last_seq) VALUES ($1, $2, 1) \
               ON CONFLICT (service) DO UPDATE SET last_seq = outbox_epoch.last_seq + 1 RETURNING epoch, last_seq";
    let values: [sea_orm::Value; 2] = [context.service.clone().into(), micros(now).into()];
    let row = tx
        .query_one_raw(Statement::from_sql_and_values(backend, sql, values))
        .await?
        .ok_or_else(|| StoreError::Corrupt("outbox counter gave no number".to_owned()))?;
    let (epoch, seq): (i64, i64) = (row.try_get("", "epoch")?, row.try_get("", "last_seq")?);
    let share = share::take(tx, context, &organization, bytes).await?;
    if room == Room::Needed {
        refuse_if_full(tx, context, (epoch, seq), now).await?;
        share.refuse_if_full(context, &organization)?;
    }

    let (service, instance) = (&context.service, &context.instance);
    let row =
        NewRow { service, epoch, seq, instance, create_time: micros(now), organization: &organization, text };
    insert(tx, row).await?;
    Ok(seq)
}

/// A row as it is written.
struct NewRow<'a> {
    service: &'a str,
    epoch: i64,
    seq: i64,
    instance: &'a str,
    create_time: i64,
    organization: &'a str,
    /// The event as JSON.
    text: String,
}

async fn insert<C: ConnectionTrait>(tx: &C, row: NewRow<'_>) -> Result<(), StoreError> {
    let NewRow { service, epoch, seq, instance, create_time, organization, text } = row;
    let bytes = i64::try_from(text.len()).unwrap_or(i64::MAX);
    let sql = "INSERT INTO outbox (service, epoch, seq, instance, create_time, organization, bytes, event) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let values: [sea_orm::Value; 8] = [
        service.into(),
        epoch.into(),
        seq.into(),
        instance.into(),
        create_time.into(),
        organization.into(),
        bytes.into(),
        text.into(),
    ];
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    Ok(())
}

/// Whether an event of the organization would be taken now. What is about to happen outside of the database, and will
/// have to be recorded, begins only then.
pub async fn has_room(tx: &Tx, context: &OutboxContext, organization: &str) -> Result<bool, StoreError> {
    let sql = "SELECT epoch, last_seq FROM outbox_epoch WHERE service = $1";
    let statement =
        Statement::from_sql_and_values(tx.get_database_backend(), sql, [context.service.clone().into()]);
    let Some(row) = tx.query_one_raw(statement).await? else { return Ok(true) };
    let next = (row.try_get("", "epoch")?, row.try_get::<i64>("", "last_seq")? + 1);
    let full = match refuse_if_full(tx, context, next, context.clock.now()).await {
        Ok(()) => share::waiting(tx, context, organization).await?.refuse_if_full(context, organization),
        full => full,
    };
    match full {
        Ok(()) => Ok(true),
        Err(StoreError::OutboxFull { .. } | StoreError::OrganizationOutboxFull { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn refuse_if_full(
    tx: &Tx,
    context: &OutboxContext,
    (epoch, seq): (i64, i64),
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

/// How far the relay is behind, for health and metrics. Its cost does not grow with what waits.
pub async fn lag(store: &Store, service: &str, now: OffsetDateTime) -> Result<Lag, StoreError> {
    let sql = "SELECT o.epoch, o.seq, o.create_time, e.epoch AS last_epoch, e.last_seq FROM outbox o \
               JOIN outbox_epoch e ON e.service = o.service WHERE o.service = $1 \
               ORDER BY o.service, o.epoch, o.seq LIMIT 1";
    let statement = Statement::from_sql_and_values(store.backend(), sql, [service.into()]);
    let Some(row) = store.read().query_one_raw(statement).await? else { return Ok(Lag::default()) };
    let (epoch, seq): (i64, i64) = (row.try_get("", "epoch")?, row.try_get("", "seq")?);
    let (last_epoch, last_seq): (i64, i64) = (row.try_get("", "last_epoch")?, row.try_get("", "last_seq")?);
    let oldest: i64 = row.try_get("", "create_time")?;
    let oldest = Duration::from_micros(u64::try_from(micros(now) - oldest).unwrap_or_default());
    // Numbers have no gaps, so they count. Of an older epoch only the end is not known: it is rare and short.
    let rows = if epoch == last_epoch { last_seq - seq + 1 } else { last_seq + 1 };
    Ok(Lag { rows, oldest: Some(oldest) })
}

/// The first events that wait, in order; all of one epoch and one instance, and together of at most `bytes` (but at
/// least one).
pub async fn pending(
    store: &Store,
    service: &str,
    limit: u64,
    bytes: usize,
) -> Result<Vec<OutboxRow>, StoreError> {
    // A few first: large ones fill the delivery with that, and small ones cost a second query.
    const PAGES: [u64; 3] = [16, 64, u64::MAX];
    let mut rows: Vec<OutboxRow> = Vec::new();
    let mut total = 0;
    for page in PAGES {
        let wanted = page.min(limit.saturating_sub(rows.len() as u64));
        let after = rows.last().map_or((i64::MIN, i64::MIN), |row| (row.epoch, row.seq));
        let found = page_after(store, service, after, wanted).await?;
        let complete = (found.len() as u64) < wanted;
        for (row, size) in found {
            let other = |first: &OutboxRow| first.epoch != row.epoch || first.instance != row.instance;
            total += size;
            if rows.first().is_some_and(|first| other(first) || total > bytes) {
                return Ok(rows);
            }
            rows.push(row);
        }
        if complete || rows.len() as u64 >= limit {
            break;
        }
    }
    Ok(rows)
}

async fn page_after(
    store: &Store,
    service: &str,
    (epoch, seq): (i64, i64),
    limit: u64,
) -> Result<Vec<(OutboxRow, usize)>, StoreError> {
    let sql = "SELECT epoch, seq, instance, create_time, organization, event FROM outbox \
               WHERE service = $1 AND (epoch, seq) > ($2, $3) ORDER BY service, epoch, seq LIMIT $4";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let values: [sea_orm::Value; 4] = [service.into(), epoch.into(), seq.into(), limit.into()];
    let statement = Statement::from_sql_and_values(store.backend(), sql, values);
    let rows = store.read().query_all_raw(statement).await?;
    rows.iter().map(|row| read_row(service, row)).collect()
}

/// A row and the size of its event.
fn read_row(service: &str, row: &QueryResult) -> Result<(OutboxRow, usize), StoreError> {
    let (epoch, seq): (i64, i64) = (row.try_get("", "epoch")?, row.try_get("", "seq")?);
    let corrupt = |what: &str| StoreError::Corrupt(format!("outbox event {service}/{epoch}/{seq}: {what}"));
    let event: String = row.try_get("", "event")?;
    let parsed: AuditEvent = serde_json::from_str(&event).map_err(|_| corrupt("not an audit event"))?;
    let organization: String = row.try_get("", "organization")?;
    let row = OutboxRow {
        service: service.to_owned(),
        instance: row.try_get("", "instance")?,
        epoch,
        seq,
        create_time: from_micros(row.try_get("", "create_time")?)
            .ok_or_else(|| corrupt("time out of range"))?,
        // Empty in rows that were written before it was kept.
        organization: if organization.is_empty() { parsed.organization().to_owned() } else { organization },
        event: parsed,
    };
    Ok((row, event.len()))
}

/// Forgets the events of an epoch up to `seq`, after they were delivered.
pub async fn delivered(store: &Store, service: &str, epoch: i64, seq: i64) -> Result<(), StoreError> {
    let service = service.to_owned();
    store
        .upkeep("outbox: events that were delivered", move |tx| {
            let service = service.clone();
            Box::pin(async move { forget(tx, &service, epoch, seq).await })
        })
        .await
}

async fn forget(tx: &Tx, service: &str, epoch: i64, seq: i64) -> Result<(), StoreError> {
    let sql =
        "DELETE FROM outbox WHERE service = $1 AND epoch = $2 AND seq <= $3 RETURNING organization, bytes";
    let values: [sea_orm::Value; 3] = [service.into(), epoch.into(), seq.into()];
    let gone =
        tx.query_all_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    // What another replica's relay has deleted is counted by that one.
    let mut delivered = BTreeMap::<String, (i64, i64)>::new();
    for row in &gone {
        let organization: String = row.try_get("", "organization")?;
        let (events, bytes) = delivered.entry(organization).or_default();
        *events += 1;
        *bytes += row.try_get::<i64>("", "bytes")?;
    }
    share::give_back(tx, service, delivered).await
}
