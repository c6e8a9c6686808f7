//! Whose clock counts. Leases, pauses, deadlines and timers are compared by every replica, so on PostgreSQL all of them
//! go by the database's clock. On SQLite there is one process; its leases go by a clock that is never set.

use std::time::Instant;

use pavior_core::clock::Clock;
use pavior_store::micros;
use sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::store::prelude::*;

/// Microseconds since the epoch as of the start of the process, counted on without regard to what the machine's clock
/// is set to afterwards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steady {
    start: i64,
    begin: Instant,
}

impl Steady {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self { start: micros(clock.now()), begin: Instant::now() }
    }

    fn now(self) -> i64 {
        let passed = i64::try_from(self.begin.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.start.saturating_add(passed)
    }
}

impl Db {
    /// The time by which leases, pauses and deadlines run, in microseconds since the epoch.
    pub(crate) async fn time<C: ConnectionTrait>(&self, on: &C) -> Result<i64> {
        match on.get_database_backend() {
            DbBackend::Postgres => database_time(on).await,
            _ => Ok(self.steady.now()),
        }
    }

    /// The time by which timers run that people set, in microseconds since the epoch.
    pub(crate) async fn wall_time<C: ConnectionTrait>(&self, on: &C) -> Result<i64> {
        match on.get_database_backend() {
            DbBackend::Postgres => database_time(on).await,
            _ => Ok(self.now_micros()),
        }
    }
}

/// Not `now()`, which stands still in a transaction.
async fn database_time<C: ConnectionTrait>(on: &C) -> Result<i64> {
    let sql = "SELECT (extract(epoch from clock_timestamp()) * 1000000)::bigint AS now";
    let row = on.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    let row = row.ok_or_else(|| Error::Corrupt("the database did not tell the time".to_owned()))?;
    Ok(row.try_get("", "now")?)
}
