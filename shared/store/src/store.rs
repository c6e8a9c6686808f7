//! The connection to one service's database.

use crate::group::Group;
use crate::sqlite::{self, FileLock};
use crate::{DatabaseConfig, Retryable, StoreError};
use backon::BackoffBuilder as _;
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DatabaseTransaction, DbBackend,
    IsolationLevel, TransactionTrait as _,
};
use sea_orm_migration::MigratorTrait;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What a transaction's closure returns: `Box::pin(async move { … })`.
pub type TxFuture<'c, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>;

/// How often a transaction that lost a race is tried again.
const MAX_RETRIES: usize = 10;
/// Key of the PostgreSQL advisory lock under which migrations run ("pavior" in ASCII).
const MIGRATION_LOCK: i64 = 0x7061_7669_6f72;

/// One service's database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    backend: DbBackend,
    read: DatabaseConnection,
    writer: Writer,
    commits: watch::Sender<u64>,
}

#[derive(Debug)]
enum Writer {
    /// All writes in turn over one connection.
    Sqlite { connection: DatabaseConnection, group: Arc<Group>, _lock: FileLock },
    /// The pool that also reads.
    Postgres,
}

impl Store {
    /// Connects, and fails when the database cannot be reached. `name` stands in PostgreSQL's `application_name`
    /// and in logs.
    pub async fn connect(config: &DatabaseConfig, name: &str) -> Result<Self, StoreError> {
        config.validate()?;
        let url = config.url.expose();
        let (backend, read, writer) = if url.starts_with("sqlite:") {
            connect_sqlite(config).await?
        } else {
            let mut options = options(config);
            options.max_connections(config.max_connections).min_connections(config.min_connections);
            options.set_application_name(format!("pavior-{name}"));
            if config.statement_timeout_ms > 0 {
                options.statement_timeout(Duration::from_millis(config.statement_timeout_ms));
            }
            (DbBackend::Postgres, Database::connect(options).await?, Writer::Postgres)
        };
        let inner = Inner { name: name.to_owned(), backend, read, writer, commits: watch::Sender::new(0) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The name given to [`Store::connect`].
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// SQLite or PostgreSQL.
    pub fn backend(&self) -> DbBackend {
        self.inner.backend
    }

    /// The pool to read from, outside of a transaction. On SQLite its connections refuse to write.
    pub fn read(&self) -> &DatabaseConnection {
        &self.inner.read
    }

    /// Counts this process's commits; `changed()` wakes when there was one.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.inner.commits.subscribe()
    }

    /// Answers whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.inner.read.ping().await.map_err(StoreError::from)
    }

    /// Runs `work` in a transaction and commits it if it returns `Ok`.
    ///
    /// Isolation is READ COMMITTED on PostgreSQL (lock or check what you rely on) and serial on SQLite. `work` runs
    /// again, after a pause with jitter, when the transaction lost a race; so it must have no effect outside of `tx`
    /// and clone what it moves into the future:
    ///
    /// ```ignore
    /// store.tx(|tx| { let name = name.clone(); Box::pin(async move { insert(tx, &name).await }) }).await
    /// ```
    pub async fn tx<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> FnMut(&'c DatabaseTransaction) -> TxFuture<'c, T, E> + Send,
        T: Send,
        E: From<StoreError> + Retryable + Send,
    {
        self.retry(work, IsolationLevel::ReadCommitted).await
    }

    /// The same with isolation SERIALIZABLE on PostgreSQL.
    pub async fn tx_serializable<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> FnMut(&'c DatabaseTransaction) -> TxFuture<'c, T, E> + Send,
        T: Send,
        E: From<StoreError> + Retryable + Send,
    {
        self.retry(work, IsolationLevel::Serializable).await
    }

    async fn retry<T, E, F>(&self, mut work: F, isolation: IsolationLevel) -> Result<T, E>
    where
        F: for<'c> FnMut(&'c DatabaseTransaction) -> TxFuture<'c, T, E> + Send,
        T: Send,
        E: From<StoreError> + Retryable + Send,
    {
        let mut pauses = backon::ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(3))
            .with_max_delay(Duration::from_millis(250))
            .with_max_times(MAX_RETRIES)
            .with_jitter()
            .build();
        loop {
            let result = match &self.inner.writer {
                Writer::Sqlite { group, .. } => group.run(&mut work).await,
                Writer::Postgres => self.attempt(&mut work, isolation).await,
            };
            match result {
                Ok(value) => {
                    self.inner.commits.send_modify(|n| *n = n.wrapping_add(1));
                    return Ok(value);
                }
                Err(error) if error.is_retryable() => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt<T, E, F>(&self, work: &mut F, isolation: IsolationLevel) -> Result<T, E>
    where
        F: for<'c> FnMut(&'c DatabaseTransaction) -> TxFuture<'c, T, E> + Send,
        T: Send,
        E: From<StoreError> + Retryable + Send,
    {
        // READ COMMITTED is the server's default; saying so would cost a round trip.
        let level = (isolation != IsolationLevel::ReadCommitted).then_some(isolation);
        let tx = self.inner.read.begin_with_config(level, None).await.map_err(StoreError::from)?;
        match work(&tx).await {
            Ok(value) => {
                tx.commit().await.map_err(StoreError::from)?;
                Ok(value)
            }
            Err(error) => {
                if let Err(rollback) = tx.rollback().await {
                    tracing::debug!(error = %rollback, store = self.inner.name, "rollback failed");
                }
                Err(error)
            }
        }
    }

    /// Closes the connections once they are idle. On SQLite the file's lock goes with the last clone of the store.
    pub async fn close(&self) -> Result<(), StoreError> {
        if let Writer::Sqlite { connection, .. } = &self.inner.writer {
            connection.clone().close().await?;
        }
        self.inner.read.clone().close().await.map_err(StoreError::from)
    }
}

/// Applies the migrations of `M` that are missing, all or none. Replicas that start together wait for one another.
pub async fn migrate<M: MigratorTrait>(store: &Store) -> Result<(), StoreError> {
    let connection = match &store.inner.writer {
        Writer::Sqlite { connection, .. } => connection,
        Writer::Postgres => &store.inner.read,
    };
    let tx = connection.begin().await?;
    if store.backend() == DbBackend::Postgres {
        tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).await?;
    }
    M::up(&tx, None).await?;
    tx.commit().await?;
    Ok(())
}

fn options(config: &DatabaseConfig) -> ConnectOptions {
    let mut options = ConnectOptions::new(config.url.expose());
    options.sqlx_logging(false);
    options.record_stmt_in_spans(false);
    options.acquire_timeout(Duration::from_millis(config.acquire_timeout_ms));
    options.connect_timeout(Duration::from_millis(config.acquire_timeout_ms));
    options
}

async fn connect_sqlite(
    config: &DatabaseConfig,
) -> Result<(DbBackend, DatabaseConnection, Writer), StoreError> {
    let lock = FileLock::take(&sqlite::path(config.url.expose())?)?;
    let busy = Duration::from_millis(config.busy_timeout_ms);
    let open = |writes: bool| {
        let mut options = options(config);
        // A connection to a file does not go bad, so neither ping nor renew it.
        options.test_before_acquire(false).idle_timeout(None).max_lifetime(None);
        if writes {
            options.max_connections(1).min_connections(1);
        } else {
            options.max_connections(config.max_connections).min_connections(config.min_connections);
        }
        options.map_sqlx_sqlite_opts(move |o| {
            let o = o
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(busy)
                .foreign_keys(true);
            if writes { o } else { o.pragma("query_only", "ON") }
        });
        options
    };
    let connection = Database::connect(open(true)).await?;
    let read = Database::connect(open(false)).await?;
    let group = Group::new(connection.clone(), Duration::from_millis(config.acquire_timeout_ms));
    Ok((DbBackend::Sqlite, read, Writer::Sqlite { connection, group, _lock: lock }))
}
