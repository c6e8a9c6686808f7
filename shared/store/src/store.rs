//! The connection to one service's database.

use crate::health;
use crate::member::Ended;
use crate::outbox::History;
use crate::postgres::Transactions;
use crate::pulse::Pulse;
use crate::sqlite::{self, Opener};
use crate::tx::{Tx, TxFuture};
use crate::writer::{CLOSE, Limits, Writer};
use crate::{DatabaseConfig, Retryable, StoreError};
use backon::BackoffBuilder as _;
use sea_orm::{
    AccessMode, ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DatabaseTransaction,
    DbBackend, SqliteTransactionMode, TransactionOptions, TransactionTrait as _,
};
use sea_orm_migration::MigratorTrait;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, watch};

/// How often a transaction that lost a race is tried again.
const MAX_RETRIES: usize = 10;
/// Key of the PostgreSQL advisory lock under which migrations run ("pavior" in ASCII).
const MIGRATION_LOCK: i64 = 0x7061_7669_6f72;

/// Most that a health check may take: less than whoever asks waits, so that it hears the reason.
const CHECK: Duration = Duration::from_millis(1_500);

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
    writes: Writes,
    pulse: Arc<Pulse>,
    /// How long a health check may take.
    patience: Duration,
    commits: watch::Sender<u64>,
    history: History,
}

#[derive(Debug)]
enum Writes {
    /// All in turn, over one connection. The lock keeps other processes away from the file.
    Sqlite { writer: Writer, migrations: Box<ConnectOptions>, lock: Mutex<Option<pavior_files::Lock>> },
    /// Each on a connection of the pool.
    Postgres(Transactions),
    /// None: another process may have the file.
    Refused,
}

impl Store {
    /// Connects, and fails when the database cannot be reached. `name` stands in PostgreSQL's `application_name`
    /// and in logs.
    pub async fn connect(config: &DatabaseConfig, name: &str) -> Result<Self, StoreError> {
        config.validate()?;
        let (pulse, commits) = (Arc::new(Pulse::default()), watch::Sender::new(0));
        let (backend, read, writes) = if config.url.expose().starts_with("sqlite:") {
            connect_sqlite(config, &pulse, &commits).await?
        } else {
            connect_postgres(config, name, &pulse, &commits).await?
        };
        Ok(Self::new(config, name, (backend, read, writes), pulse, commits))
    }

    /// Connects for reading alone, also beside the process that has an SQLite file: makes, locks and changes nothing.
    pub async fn connect_to_read(config: &DatabaseConfig, name: &str) -> Result<Self, StoreError> {
        config.validate()?;
        let (pulse, commits) = (Arc::new(Pulse::default()), watch::Sender::new(0));
        let (backend, read, _) = if config.url.expose().starts_with("sqlite:") {
            let mut options = options(config);
            options.max_connections(config.max_connections).min_connections(1);
            options.map_sqlx_sqlite_opts(|o| o.read_only(true).create_if_missing(false));
            (DbBackend::Sqlite, Database::connect(options).await?, Writes::Refused)
        } else {
            connect_postgres(config, name, &pulse, &commits).await?
        };
        Ok(Self::new(config, name, (backend, read, Writes::Refused), pulse, commits))
    }

    fn new(
        config: &DatabaseConfig,
        name: &str,
        (backend, read, writes): Connected,
        pulse: Arc<Pulse>,
        commits: watch::Sender<u64>,
    ) -> Self {
        let patience = Duration::from_millis(config.acquire_timeout_ms).min(CHECK);
        let (name, history) = (name.to_owned(), History::default());
        let inner = Inner { name, backend, read, writes, pulse, patience, commits, history };
        Self { inner: Arc::new(inner) }
    }

    /// The name given to [`Store::connect`].
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// SQLite or PostgreSQL.
    pub fn backend(&self) -> DbBackend {
        self.inner.backend
    }

    /// The pool to read from, outside of a transaction. Its connections refuse to write.
    pub fn read(&self) -> &DatabaseConnection {
        &self.inner.read
    }

    /// Counts this process's commits; `changed()` wakes when there was one.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.inner.commits.subscribe()
    }

    /// What is known of its history and of the audit log's: one for all that write to it.
    pub fn history(&self) -> &History {
        &self.inner.history
    }

    /// Answers whether the database takes writes, by writing. What is wrong
    /// is said in words for an operator. Cheap when something was committed within the last second.
    pub async fn check(&self) -> Result<(), String> {
        if self.inner.pulse.committed_within(Duration::from_secs(1)) {
            return Ok(());
        }
        let write = self.upkeep("a write for the health check", |tx| {
            Box::pin(async move { health::write(tx).await.map_err(StoreError::from) })
        });
        let reason = match tokio::time::timeout(self.inner.patience, write).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(StoreError::Database(error) | StoreError::OutcomeUnknown(error))) => {
                crate::error::plain(&error).to_owned()
            }
            Ok(Err(StoreError::Busy)) | Err(_) => self.inner.pulse.plain(),
            Ok(Err(error)) => error.to_string(),
        };
        Err(reason)
    }

    /// Runs `work` in a transaction, again when that lost a race.
    pub(crate) async fn transaction<T, E, F>(&self, mut work: F) -> Result<T, E>
    where
        F: for<'c> FnMut(&'c Tx) -> TxFuture<'c, Ended<T>, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Retryable + Send + 'static,
    {
        let mut pauses = backon::ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(3))
            .with_max_delay(Duration::from_millis(250))
            .with_max_times(MAX_RETRIES)
            .with_jitter()
            .build();
        loop {
            let (again, result) = match &self.inner.writes {
                Writes::Sqlite { writer, .. } => writer.run(work).await?,
                Writes::Postgres(transactions) => transactions.run(work).await?,
                Writes::Refused => return Err(read_only().into()),
            };
            work = again;
            match result {
                Err(error) if error.is_retryable() => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error),
                },
                result => return result,
            }
        }
    }

    /// Closes in order: takes no more, commits what waits, empties SQLite's write-ahead log, closes the connections
    /// and gives the file free.
    pub async fn close(&self) -> Result<(), StoreError> {
        match &self.inner.writes {
            Writes::Sqlite { writer, lock, .. } => {
                writer.close().await;
                lock.lock().await.take();
            }
            Writes::Postgres(_) | Writes::Refused => {
                if tokio::time::timeout(CLOSE, self.inner.read.close_by_ref()).await.is_err() {
                    tracing::warn!(store = self.inner.name, "connections are still at work");
                }
            }
        }
        Ok(())
    }
}

/// Applies the migrations of `M` that are missing, all or none. Replicas that start together wait for one another.
pub async fn migrate<M: MigratorTrait>(store: &Store) -> Result<(), StoreError> {
    // SeaORM's migrations take none but its own connections.
    let own = match &store.inner.writes {
        Writes::Sqlite { migrations, .. } => Some(Database::connect((**migrations).clone()).await?),
        Writes::Postgres(_) => None,
        Writes::Refused => return Err(read_only()),
    };
    let connection = own.as_ref().unwrap_or(&store.inner.read);
    let options = TransactionOptions {
        access_mode: Some(AccessMode::ReadWrite).filter(|_| own.is_none()),
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate).filter(|_| own.is_some()),
        ..TransactionOptions::default()
    };
    let result = async {
        let tx = connection.begin_with_options(options).await?;
        if own.is_none() {
            tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).await?;
        }
        known::<M>(&tx).await?;
        M::up(&tx, None).await?;
        tx.commit().await.map_err(StoreError::from)
    };
    let result: Result<(), StoreError> = result.await;
    if let Some(own) = own {
        own.close().await?;
    }
    result
}

/// Refuses a database in which a migration was done that is none of ours.
async fn known<M: MigratorTrait>(tx: &DatabaseTransaction) -> Result<(), StoreError> {
    M::install(tx).await?;
    let done = M::get_migration_models(tx).await?;
    let ours: HashSet<String> = M::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    match done.into_iter().find(|one| !ours.contains(&one.version)) {
        Some(foreign) => Err(StoreError::OtherVersion(format!("migration `{}`", foreign.version))),
        None => Ok(()),
    }
}

fn read_only() -> StoreError {
    StoreError::Config("the database was opened for reading only".to_owned())
}

fn options(config: &DatabaseConfig) -> ConnectOptions {
    let mut options = ConnectOptions::new(config.url.expose());
    options.sqlx_logging(false);
    options.record_stmt_in_spans(false);
    options.acquire_timeout(Duration::from_millis(config.acquire_timeout_ms));
    options.connect_timeout(Duration::from_millis(config.acquire_timeout_ms));
    options
}

type Connected = (DbBackend, DatabaseConnection, Writes);

async fn connect_postgres(
    config: &DatabaseConfig,
    name: &str,
    pulse: &Arc<Pulse>,
    commits: &watch::Sender<u64>,
) -> Result<Connected, StoreError> {
    let mut options = options(config);
    options.max_connections(config.max_connections).min_connections(config.min_connections);
    options.set_application_name(format!("pavior-{name}"));
    if config.statement_timeout_ms > 0 {
        options.statement_timeout(Duration::from_millis(config.statement_timeout_ms));
    }
    // Only what says that it writes can write.
    options.map_sqlx_postgres_opts(|o| o.options([("default_transaction_read_only", "on")]));
    let read = Database::connect(options).await?;
    let transactions = Transactions {
        pool: read.get_postgres_connection_pool().clone(),
        places: Arc::new(Semaphore::new(config.max_connections as usize)),
        acquire_timeout: Duration::from_millis(config.acquire_timeout_ms),
        limit: Duration::from_millis(config.transaction_timeout_ms),
        pulse: pulse.clone(),
        commits: commits.clone(),
    };
    Ok((DbBackend::Postgres, read, Writes::Postgres(transactions)))
}

async fn connect_sqlite(
    config: &DatabaseConfig,
    pulse: &Arc<Pulse>,
    commits: &watch::Sender<u64>,
) -> Result<Connected, StoreError> {
    let path = sqlite::path(config.url.expose())?;
    let lock = sqlite::lock(&path)?;
    sqlite::check_crashed(config, &path).await?;
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
            let o = sqlite::durable(o, busy);
            if writes { o } else { o.pragma("query_only", "ON") }
        });
        options
    };
    let limits = Limits {
        acquire_timeout: Duration::from_millis(config.acquire_timeout_ms),
        transaction_timeout: Duration::from_millis(config.transaction_timeout_ms),
    };
    let first = Opener::new(config)?;
    let tx = first.open(true).await?;
    let read = Database::connect(open(false)).await?;
    let writer = Writer::start(first, tx, read.clone(), limits, pulse.clone(), commits.clone()).await?;
    let writes = Writes::Sqlite { writer, migrations: Box::new(open(true)), lock: Mutex::new(Some(lock)) };
    Ok((DbBackend::Sqlite, read, writes))
}
