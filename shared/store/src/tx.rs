//! The transaction that a closure works in.
//!
//! A closure can run statements and nothing else: whoever runs the closure begins and ends the transaction. On SQLite
//! hooks tell whether the transaction is still the one that was begun. SQLite undoes a whole transaction by itself
//! when the disk is full or fails, and later statements would then commit one by one; so the hook lets nothing commit
//! but the writer's own COMMIT, and a transaction that ended from within takes no further statement.

use crate::error::breaks_connection;
use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::sqlite::SqliteConnection;
use sea_orm::sqlx::{self, AssertSqlSafe, Connection as _, Executor as _, Postgres, Sqlite};
use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement, sea_query::Values,
};
use sea_query_sqlx::SqlxValues;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// What a transaction's closure returns: `Box::pin(async move { … })`.
pub type TxFuture<'c, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>;

/// How many instructions SQLite runs before it looks whether to stop.
const STOP_CHECK: i32 = 20_000;

/// A transaction, for SeaORM's queries. It is begun and ended by the store only.
pub struct Tx {
    backend: DbBackend,
    connection: Mutex<Connection>,
    state: Arc<State>,
}

enum Connection {
    Sqlite(SqliteConnection),
    Postgres(Held),
}

/// A PostgreSQL connection that goes back to its pool only when no transaction is open on it.
struct Held {
    connection: PoolConnection<Postgres>,
    open: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.open {
            self.connection.close_on_drop();
        }
    }
}

/// What is known of the transaction; shared with SQLite's hooks.
#[derive(Default)]
struct State {
    /// Only while the writer commits.
    may_commit: AtomicBool,
    commits: AtomicU32,
    rollbacks: AtomicU32,
    /// Asks a running statement to end.
    stop: AtomicBool,
    /// Why the transaction cannot go on.
    broken: OnceLock<DbErr>,
}

/// For a server to begin, commit or undo a transaction.
const SERVER_ANSWERS: Duration = Duration::from_secs(10);

/// What came of a COMMIT.
#[derive(Debug)]
pub(crate) enum Committed {
    /// It is durable.
    Yes,
    /// Nothing of it is left.
    No(DbErr),
    /// Nobody can say.
    Unknown(DbErr),
}

impl Tx {
    /// Takes a connection over for good.
    pub(crate) async fn sqlite(mut connection: SqliteConnection) -> Result<Self, DbErr> {
        let state = Arc::new(State::default());
        {
            let mut handle = connection.lock_handle().await.map_err(exec_error)?;
            let hooked = state.clone();
            handle.set_commit_hook(move || {
                hooked.commits.fetch_add(1, Ordering::SeqCst);
                hooked.may_commit.load(Ordering::SeqCst)
            });
            let hooked = state.clone();
            handle.set_rollback_hook(move || {
                hooked.rollbacks.fetch_add(1, Ordering::SeqCst);
            });
            let hooked = state.clone();
            handle.set_progress_handler(STOP_CHECK, move || !hooked.stop.load(Ordering::SeqCst));
        }
        let connection = Mutex::new(Connection::Sqlite(connection));
        Ok(Self { backend: DbBackend::Sqlite, connection, state })
    }

    /// Takes a connection for one transaction.
    pub(crate) fn postgres(connection: PoolConnection<Postgres>) -> Self {
        let connection = Mutex::new(Connection::Postgres(Held { connection, open: true }));
        Self { backend: DbBackend::Postgres, connection, state: Arc::default() }
    }

    /// Runs a statement of the one who owns the transaction. A server that does not answer is given up: its connection
    /// may be half open, and is closed.
    pub(crate) async fn control(&self, sql: &'static str) -> Result<(), DbErr> {
        let mut connection = self.connection.lock().await;
        let done = match &mut *connection {
            Connection::Sqlite(connection) => connection.execute(sql).await.map(drop),
            Connection::Postgres(held) => match timeout(SERVER_ANSWERS, held.connection.execute(sql)).await {
                Ok(done) => done.map(drop),
                Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
            },
        };
        done.map_err(exec_error)
    }

    /// Begins a transaction on SQLite.
    pub(crate) async fn begin_sqlite(&self) -> Result<(), DbErr> {
        self.state.commits.store(0, Ordering::SeqCst);
        self.state.rollbacks.store(0, Ordering::SeqCst);
        self.control("BEGIN IMMEDIATE").await
    }

    /// Why the transaction is no longer what was begun.
    pub(crate) fn broken(&self) -> Option<DbErr> {
        self.notice();
        self.state.broken.get().cloned()
    }

    /// Commits on SQLite, and believes it only when exactly one commit was seen and no rollback.
    ///
    /// When the hook was not reached, or the disk was full, no whole commit record can have been written. After any
    /// other error one may stand in the write-ahead log, without being in its index.
    pub(crate) async fn commit_sqlite(&self) -> Committed {
        if let Some(error) = self.broken() {
            return Committed::No(error);
        }
        self.state.may_commit.store(true, Ordering::SeqCst);
        let done = self.control("COMMIT").await;
        self.state.may_commit.store(false, Ordering::SeqCst);
        let commits = self.state.commits.load(Ordering::SeqCst);
        let rollbacks = self.state.rollbacks.load(Ordering::SeqCst);
        match done {
            Ok(()) if (commits, rollbacks) == (1, 0) => Committed::Yes,
            Ok(()) => Committed::Unknown(ended_within()),
            Err(error) if commits == 0 || crate::error::is_full(&error) => Committed::No(error),
            Err(error) => Committed::Unknown(error),
        }
    }

    /// Commits on PostgreSQL. It answers COMMIT in a failed transaction with ROLLBACK and no error, so a statement
    /// that fails there goes before it in the same message.
    pub(crate) async fn commit_postgres(&self) -> Committed {
        match self.control("SELECT 1; COMMIT").await {
            Ok(()) => {
                self.ended().await;
                Committed::Yes
            }
            Err(error) if crate::error::server_refused(&error) => {
                self.rollback_postgres().await;
                Committed::No(error)
            }
            Err(error) => Committed::Unknown(error),
        }
    }

    /// Undoes on PostgreSQL. A connection on which that fails is closed, which undoes as well.
    pub(crate) async fn rollback_postgres(&self) {
        match self.control("ROLLBACK").await {
            Ok(()) => self.ended().await,
            Err(error) => tracing::debug!(%error, "rollback failed; the connection is closed"),
        }
    }

    async fn ended(&self) {
        if let Connection::Postgres(held) = &mut *self.connection.lock().await {
            held.open = false;
        }
    }

    /// Asks the statement that runs to end.
    pub(crate) fn stop(&self) {
        self.state.stop.store(true, Ordering::SeqCst);
    }

    /// Ends the connection, and waits for that.
    pub(crate) async fn close(self) -> Result<(), DbErr> {
        match self.connection.into_inner() {
            Connection::Sqlite(connection) => connection.close().await.map_err(exec_error),
            Connection::Postgres(_) => Ok(()),
        }
    }

    /// The connection for a statement, unless the transaction has ended from within.
    async fn ready(&self) -> Result<MutexGuard<'_, Connection>, DbErr> {
        let connection = self.connection.lock().await;
        match self.broken() {
            Some(error) => Err(error),
            None => Ok(connection),
        }
    }

    fn notice(&self) {
        let ended =
            self.state.commits.load(Ordering::SeqCst) + self.state.rollbacks.load(Ordering::SeqCst) > 0;
        if ended {
            self.state.broken.get_or_init(ended_within);
        }
    }

    /// Looks at what a statement did to the transaction.
    fn seen<T>(
        &self,
        connection: &Connection,
        result: Result<T, sqlx::Error>,
        wrap: fn(sqlx::Error) -> DbErr,
    ) -> Result<T, DbErr> {
        let result = result.map_err(wrap);
        if let (Connection::Sqlite(_), Err(error)) = (connection, &result)
            && breaks_connection(error)
        {
            self.state.broken.get_or_init(|| error.clone());
        }
        match (result, self.broken()) {
            (Ok(_), Some(error)) => Err(error),
            (result, _) => result,
        }
    }
}

fn ended_within() -> DbErr {
    DbErr::Custom("the transaction was ended from within".to_owned())
}

fn exec_error(error: sqlx::Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(Arc::new(error)))
}

fn query_error(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}

fn values(statement: &Statement) -> SqlxValues {
    SqlxValues(statement.values.clone().unwrap_or_else(|| Values(Vec::new())))
}

#[async_trait::async_trait]
impl ConnectionTrait for Tx {
    fn get_database_backend(&self) -> DbBackend {
        self.backend
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let mut connection = self.ready().await?;
        let sql = AssertSqlSafe(statement.sql.as_str());
        let result = match &mut *connection {
            Connection::Sqlite(sqlite) => {
                let query = sqlx::query_with::<Sqlite, _>(sql, values(&statement));
                query.execute(sqlite).await.map(ExecResult::from)
            }
            Connection::Postgres(held) => {
                let query = sqlx::query_with::<Postgres, _>(sql, values(&statement));
                query.execute(&mut *held.connection).await.map(ExecResult::from)
            }
        };
        self.seen(&connection, result, exec_error)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let mut connection = self.ready().await?;
        let sql = AssertSqlSafe(sql.to_owned());
        let result = match &mut *connection {
            Connection::Sqlite(sqlite) => sqlite.execute(sql).await.map(ExecResult::from),
            Connection::Postgres(held) => held.connection.execute(sql).await.map(ExecResult::from),
        };
        self.seen(&connection, result, exec_error)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let mut connection = self.ready().await?;
        let sql = AssertSqlSafe(statement.sql.as_str());
        let result = match &mut *connection {
            Connection::Sqlite(sqlite) => {
                let query = sqlx::query_with::<Sqlite, _>(sql, values(&statement));
                query.fetch_optional(sqlite).await.map(|row| row.map(QueryResult::from))
            }
            Connection::Postgres(held) => {
                let query = sqlx::query_with::<Postgres, _>(sql, values(&statement));
                let row = query.fetch_optional(&mut *held.connection).await;
                row.map(|row| row.map(QueryResult::from))
            }
        };
        self.seen(&connection, result, query_error)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut connection = self.ready().await?;
        let sql = AssertSqlSafe(statement.sql.as_str());
        let result = match &mut *connection {
            Connection::Sqlite(sqlite) => {
                let rows = sqlx::query_with::<Sqlite, _>(sql, values(&statement)).fetch_all(sqlite).await;
                rows.map(|rows| rows.into_iter().map(QueryResult::from).collect())
            }
            Connection::Postgres(held) => {
                let query = sqlx::query_with::<Postgres, _>(sql, values(&statement));
                let rows = query.fetch_all(&mut *held.connection).await;
                rows.map(|rows| rows.into_iter().map(QueryResult::from).collect())
            }
        };
        self.seen(&connection, result, query_error)
    }
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}
