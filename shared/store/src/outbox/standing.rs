//! Whether the numbers of an outbox and those of the audit log are of the same history.
//!
//! Either database may have been set back to an older copy. Then numbers are given a second time, or the log lacks what
//! the outbox has forgotten, and neither side can tell by itself. So they are compared before anything is delivered,
//! and while they do not fit no change is taken: whatever is done on top makes it worse.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use pavior_core::audit::AuditEvent;
use pavior_core::clock::Clock;
use sea_orm::{ConnectionTrait, Statement, Value};
use tokio::sync::watch;
use uuid::Uuid;

use super::{NewRow, insert};
use crate::Tx;
use crate::{Store, StoreError, micros};

/// What an outbox knows of its own history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The present epoch; absent when there was no event yet.
    pub epoch: Option<i64>,
    /// The last number given in it.
    pub last: i64,
    /// Up to which number events of it were delivered and forgotten.
    pub delivered: i64,
}

/// What the audit log knows of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recorded {
    /// The last number of the epoch that was asked for; 0 for none.
    pub last: i64,
    /// The id of that event.
    pub last_event: Option<Uuid>,
    /// The newest epoch of the service.
    pub newest_epoch: Option<i64>,
}

/// That the database of a service and the audit log do not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apart {
    /// The service.
    pub service: String,
    /// How they do not fit.
    pub how: Difference,
}

/// How the two do not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The log has events that the database does not know of.
    Behind {
        /// The epoch.
        epoch: i64,
        /// The last number here.
        last: i64,
        /// The last number there.
        recorded: i64,
    },
    /// The log has an epoch that the database does not know of.
    OlderEpoch {
        /// The epoch here.
        epoch: Option<i64>,
        /// The newest epoch there.
        recorded: i64,
    },
    /// The log lacks events that were delivered to it.
    LogBehind {
        /// The epoch.
        epoch: i64,
        /// Up to which number they were delivered.
        delivered: i64,
        /// The last number there.
        recorded: i64,
    },
    /// The same number stands for two events.
    Diverged {
        /// The epoch.
        epoch: i64,
        /// The number.
        seq: i64,
        /// The id here.
        here: Uuid,
        /// The id there.
        there: Uuid,
    },
}

impl Difference {
    /// The same of the database of a service.
    pub fn of(self, service: impl Into<String>) -> Apart {
        Apart { service: service.into(), how: self }
    }
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, how } = self;
        match how {
            Difference::Behind { epoch, last, recorded } => write!(
                f,
                "the audit log has {recorded} events of epoch {epoch}, the database of {service} knows of {last}: it is an \
                 older copy"
            ),
            Difference::OlderEpoch { epoch: None, recorded } => write!(
                f,
                "the audit log has events of epoch {recorded}, the database of {service} knows of none: it is empty or an \
                 older copy"
            ),
            Difference::OlderEpoch { epoch: Some(epoch), recorded } => write!(
                f,
                "the audit log has events of epoch {recorded}, the database of {service} knows of none after epoch {epoch}: \
                 it is an older copy"
            ),
            Difference::LogBehind { epoch, delivered, recorded } => write!(
                f,
                "{delivered} events of {service}, epoch {epoch}, were delivered, the audit log has {recorded}: the audit \
                 database is an older copy"
            ),
            Difference::Diverged { epoch, seq, here, there } => write!(
                f,
                "event {seq} of epoch {epoch} is {here} in the database of {service} and {there} in the audit log: one of \
                 the two is an older copy"
            ),
        }
    }
}

impl Apart {
    /// What ends it, for those who are not operators.
    pub(crate) fn until(&self) -> &'static str {
        match &self.how {
            Difference::LogBehind { .. } => "an operator has put the newest copy of the audit database back",
            Difference::Behind { .. } | Difference::OlderEpoch { .. } | Difference::Diverged { .. } => {
                "an operator has run `pavior restore`"
            }
        }
    }

    /// What an operator does about it.
    pub fn remedy(&self) -> &'static str {
        match &self.how {
            Difference::LogBehind { .. } => {
                "stop the platform and put the newest copy of the audit database back; only if there is none, run \
                 `pavior restore --accept-lost-records --reason \"...\"`; then start the platform"
            }
            Difference::Behind { .. } | Difference::OlderEpoch { .. } | Difference::Diverged { .. } => {
                "stop the platform, run `pavior restore`, and start the platform"
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
enum Compared {
    /// Not since the start of the process: the audit service has not answered yet.
    #[default]
    Never,
    Fits,
    Apart(Apart),
}

/// What is known of the histories, shared by all who write. Changes are refused while they do not fit. Nothing that goes
/// on by itself begins before they are known to fit: a database that was set back says what has long been done.
#[derive(Debug, Clone)]
pub struct History(Arc<watch::Sender<Compared>>);

impl Default for History {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Compared::default())))
    }
}

impl History {
    /// How they do not fit; nothing when they do, or it is not known yet.
    pub fn apart(&self) -> Option<Apart> {
        match &*self.0.borrow() {
            Compared::Apart(apart) => Some(apart.clone()),
            Compared::Never | Compared::Fits => None,
        }
    }

    /// Whether they are known to fit.
    pub fn fits(&self) -> bool {
        matches!(*self.0.borrow(), Compared::Fits)
    }

    /// Returns once they were compared.
    pub async fn compared(&self) {
        // There is a sender for as long as this lives.
        let _ = self.0.subscribe().wait_for(|compared| !matches!(compared, Compared::Never)).await;
    }

    /// Returns once they are known to fit.
    pub async fn fitting(&self) {
        // There is a sender for as long as this lives.
        let _ = self.0.subscribe().wait_for(|compared| matches!(compared, Compared::Fits)).await;
    }

    /// Notes how they do not fit, or that they do.
    pub fn set(&self, apart: Option<Apart>) {
        self.0.send_replace(apart.map_or(Compared::Fits, Compared::Apart));
    }
}

/// What the outbox of a service knows of itself.
pub async fn position(store: &Store, service: &str) -> Result<Position, StoreError> {
    let sql = "SELECT e.epoch AS epoch, e.last_seq AS last_seq, \
               (SELECT MIN(seq) FROM outbox o WHERE o.service = e.service AND o.epoch = e.epoch) AS first_seq \
               FROM outbox_epoch e WHERE e.service = $1";
    let statement = Statement::from_sql_and_values(store.backend(), sql, [service.into()]);
    let Some(row) = store.read().query_one_raw(statement).await? else { return Ok(Position::default()) };
    let last: i64 = row.try_get("", "last_seq")?;
    let first: Option<i64> = row.try_get("", "first_seq")?;
    Ok(Position {
        epoch: Some(row.try_get("", "epoch")?),
        last,
        delivered: first.map_or(last, |first| first - 1),
    })
}

/// What a comparison comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// One history.
    Fits,
    /// Two.
    Apart(Apart),
    /// A new epoch began meanwhile: to be asked again.
    Moved,
}

/// Compares what both sides know. `before` was read before the log was asked: meanwhile both may have gone on, but what
/// was delivered then must be there now, and what is there now must be known here now.
pub async fn compare(
    store: &Store,
    service: &str,
    before: &Position,
    there: &Recorded,
) -> Result<Standing, StoreError> {
    let after = position(store, service).await?;
    if after.epoch != before.epoch {
        return Ok(Standing::Moved);
    }
    let here = Position { last: after.last, ..before.clone() };
    if let Some(how) = compare_numbers(&here, there) {
        return Ok(Standing::Apart(how.of(service)));
    }
    let (Some(epoch), Some(other)) = (here.epoch, there.last_event) else { return Ok(Standing::Fits) };
    let sql = "SELECT event FROM outbox WHERE service = $1 AND epoch = $2 AND seq = $3";
    let values: [Value; 3] = [service.into(), epoch.into(), there.last.into()];
    let row =
        store.read().query_one_raw(Statement::from_sql_and_values(store.backend(), sql, values)).await?;
    // What was delivered is forgotten.
    let Some(row) = row else { return Ok(Standing::Fits) };
    let event: String = row.try_get("", "event")?;
    let event = event_of(service, &event)?;
    let diverged = Difference::Diverged { epoch, seq: there.last, here: event.event_id, there: other };
    Ok(if event.event_id == other { Standing::Fits } else { Standing::Apart(diverged.of(service)) })
}

fn compare_numbers(here: &Position, there: &Recorded) -> Option<Difference> {
    let Position { epoch, last, delivered } = *here;
    let recorded = there.last;
    match (epoch, there.newest_epoch) {
        (_, Some(newest)) if epoch.is_none_or(|epoch| newest > epoch) => {
            Some(Difference::OlderEpoch { epoch, recorded: newest })
        }
        (Some(epoch), _) if recorded > last => Some(Difference::Behind { epoch, last, recorded }),
        (Some(epoch), _) if recorded < delivered => {
            Some(Difference::LogBehind { epoch, delivered, recorded })
        }
        _ => None,
    }
}

/// An event that waits to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Its epoch.
    pub epoch: i64,
    /// Its number.
    pub seq: i64,
    /// Its id.
    pub event: Uuid,
}

/// The events that wait, in order.
pub async fn waiting(store: &Store, service: &str) -> Result<Vec<Waiting>, StoreError> {
    let sql = "SELECT epoch, seq, event FROM outbox WHERE service = $1 ORDER BY service, epoch, seq";
    let statement = Statement::from_sql_and_values(store.backend(), sql, [service.into()]);
    let mut waiting = Vec::new();
    for row in store.read().query_all_raw(statement).await? {
        let (epoch, seq) = (row.try_get("", "epoch")?, row.try_get("", "seq")?);
        let event = event_of(service, &row.try_get::<String>("", "event")?)?.event_id;
        waiting.push(Waiting { epoch, seq, event });
    }
    Ok(waiting)
}

fn event_of(service: &str, text: &str) -> Result<AuditEvent, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt(format!("an outbox event of {service}")))
}

/// Begins a new epoch in which `events` come first and then what still waits, and returns the epoch: later than the
/// one before and than `newest`, the newest that the audit log knows. `delivered` are the numbers of waiting events
/// that the log has already. One transaction: there is no new epoch without the events that say why.
pub async fn begin_anew(
    store: &Store,
    service: &str,
    events: Vec<AuditEvent>,
    newest: Option<i64>,
    recorded: Vec<Uuid>,
    clock: &dyn Clock,
) -> Result<i64, StoreError> {
    let (service, now) = (service.to_owned(), micros(clock.now()));
    store
        .upkeep("outbox: a new epoch", move |tx| {
            let (service, events, recorded) = (service.clone(), events.clone(), recorded.clone());
            Box::pin(async move { anew(tx, &service, events, newest, &recorded, now).await })
        })
        .await
}

/// What is done to each row is done by the database: after a long outage a hundred thousand may wait.
async fn anew(
    tx: &Tx,
    service: &str,
    events: Vec<AuditEvent>,
    newest: Option<i64>,
    recorded: &[Uuid],
    now: i64,
) -> Result<i64, StoreError> {
    let backend = tx.get_database_backend();
    let statement = |sql: &str, values: Vec<Value>| Statement::from_sql_and_values(backend, sql, values);
    let sql = "SELECT epoch FROM outbox_epoch WHERE service = $1";
    let before: Option<i64> = match tx.query_one_raw(statement(sql, vec![service.into()])).await? {
        Some(row) => Some(row.try_get("", "epoch")?),
        None => None,
    };
    let epoch = now.max(before.unwrap_or(0).max(newest.unwrap_or(0)) + 1);
    forget_recorded(tx, service, recorded).await?;
    let own = i64::try_from(events.len()).unwrap_or(i64::MAX);
    let sql = "UPDATE outbox SET epoch = $2, seq = $3 + numbered.place FROM (SELECT epoch AS old_epoch, seq AS \
               old_seq, ROW_NUMBER() OVER (ORDER BY epoch, seq) AS place FROM outbox WHERE service = $1) AS numbered \
               WHERE service = $1 AND epoch = numbered.old_epoch AND seq = numbered.old_seq";
    let values = vec![service.into(), epoch.into(), own.into()];
    let waiting = tx.execute_raw(statement(sql, values)).await?.rows_affected();
    for (seq, event) in (1..).zip(events) {
        let event = event.bounded();
        let text = serde_json::to_string(&event)
            .map_err(|e| StoreError::Corrupt(format!("audit event cannot be written as JSON: {e}")))?;
        let organization = event.organization();
        let row = NewRow { service, epoch, seq, instance: "restore", create_time: now, organization, text };
        insert(tx, row).await?;
    }
    let seq = own.saturating_add(i64::try_from(waiting).unwrap_or(i64::MAX));
    // What waits of each organization is counted anew.
    for sql in [
        "DELETE FROM outbox_appended WHERE service = $1",
        "DELETE FROM outbox_delivered WHERE service = $1",
        "INSERT INTO outbox_appended (service, organization, events, bytes) \
         SELECT service, organization, COUNT(*), CAST(SUM(bytes) AS BIGINT) FROM outbox WHERE service = $1 \
         GROUP BY service, organization",
    ] {
        tx.execute_raw(statement(sql, vec![service.into()])).await?;
    }
    let sql = "INSERT INTO outbox_epoch (service, epoch, last_seq) VALUES ($1, $2, $3) \
               ON CONFLICT (service) DO UPDATE SET epoch = excluded.epoch, last_seq = excluded.last_seq";
    tx.execute_raw(statement(sql, vec![service.into(), epoch.into(), seq.into()])).await?;
    Ok(epoch)
}

/// Deletes the waiting events that the log has already.
async fn forget_recorded(tx: &Tx, service: &str, recorded: &[Uuid]) -> Result<(), StoreError> {
    if recorded.is_empty() {
        return Ok(());
    }
    let recorded: HashSet<&Uuid> = recorded.iter().collect();
    let backend = tx.get_database_backend();
    let sql = "SELECT epoch, seq, event FROM outbox WHERE service = $1 ORDER BY service, epoch, seq";
    let rows = tx.query_all_raw(Statement::from_sql_and_values(backend, sql, [service.into()])).await?;
    for row in rows {
        let event = event_of(service, &row.try_get::<String>("", "event")?)?;
        if recorded.contains(&event.event_id) {
            let (epoch, seq) = (row.try_get::<i64>("", "epoch")?, row.try_get::<i64>("", "seq")?);
            let sql = "DELETE FROM outbox WHERE service = $1 AND epoch = $2 AND seq = $3";
            let values: [Value; 3] = [service.into(), epoch.into(), seq.into()];
            tx.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_fit_and_numbers_that_do_not() {
        let here = |epoch, last, delivered| Position { epoch, last, delivered };
        let there = |last, newest_epoch| Recorded { last, last_event: None, newest_epoch };
        // Both new; nothing delivered yet; all delivered; some wait; delivered but not noted here.
        for (ours, theirs) in [
            (Position::default(), there(0, None)),
            (here(Some(5), 3, 0), there(0, None)),
            (here(Some(5), 3, 3), there(3, Some(5))),
            (here(Some(5), 9, 3), there(3, Some(5))),
            (here(Some(5), 9, 3), there(7, Some(5))),
            // After a new epoch was begun.
            (here(Some(6), 2, 0), there(0, Some(5))),
        ] {
            assert_eq!(compare_numbers(&ours, &theirs), None, "{ours:?} {theirs:?}");
        }
        for (ours, theirs, want) in [
            (Position::default(), there(0, Some(5)), Difference::OlderEpoch { epoch: None, recorded: 5 }),
            (here(Some(4), 9, 9), there(9, Some(5)), Difference::OlderEpoch { epoch: Some(4), recorded: 5 }),
            (here(Some(5), 3, 3), there(4, Some(5)), Difference::Behind { epoch: 5, last: 3, recorded: 4 }),
            (
                here(Some(5), 9, 4),
                there(3, Some(5)),
                Difference::LogBehind { epoch: 5, delivered: 4, recorded: 3 },
            ),
            (
                here(Some(5), 9, 4),
                there(0, None),
                Difference::LogBehind { epoch: 5, delivered: 4, recorded: 0 },
            ),
        ] {
            assert_eq!(compare_numbers(&ours, &theirs), Some(want), "{ours:?} {theirs:?}");
        }
    }
}
