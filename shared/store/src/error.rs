//! Database errors, sorted into the few kinds that callers act on.

use sea_orm::{DbErr, RuntimeErr, SqlErr, sqlx};

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A unique key exists already.
    Unique,
    /// Lost against a concurrent transaction; trying again helps.
    Serialization,
    /// The database cannot be reached, is full, or too busy; nothing was written, and trying later may help.
    Unavailable,
    /// The connection was lost while the change was being committed: whether it holds is not known. Never try again
    /// without a request id.
    Unknown,
    /// What is stored cannot be read.
    Corrupt,
    /// A bug, or a constraint that the service should have checked.
    Other,
}

/// An error of the store. `Display` never holds a driver's text; log `source()`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// From the database or its driver.
    #[error("database error")]
    Database(#[source] DbErr),
    /// The configuration of the database makes no sense.
    #[error("database configuration: {0}")]
    Config(String),
    /// The database has tables of a version that this one does not know.
    #[error(
        "the database was made by another version of Pavior ({0}); run that version, or begin with an empty database"
    )]
    OtherVersion(String),
    /// Another process has the SQLite file open.
    #[error(
        "database file `{path}` is in use by another process ({holder}); stop it first, or give this one its own database"
    )]
    InUse {
        /// The database file.
        path: String,
        /// What is known of the other process.
        holder: String,
    },
    /// The SQLite file and the changes beside it that were not written into it yet are not of one database, or one of the
    /// two is damaged.
    #[error(
        "database file `{path}` and `{path}-wal` do not fit: {found}. Stop here and put a copy back; where one was put \
         back already, do it again after the files `{path}-wal` and `{path}-shm` were removed"
    )]
    Damaged {
        /// The database file.
        path: String,
        /// What is wrong first.
        found: String,
    },
    /// The file system refused.
    #[error("cannot open database file `{path}`")]
    File {
        /// The database file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No writer became free in time.
    #[error("database is too busy")]
    Busy,
    /// Undone together with other transactions of the same group; nothing was written.
    #[error("transaction was undone with its group")]
    GroupUndone,
    /// The transaction took longer than it may; nothing was written.
    #[error("transaction took longer than {limit_ms} ms and was undone")]
    TookTooLong {
        /// The limit.
        limit_ms: u64,
    },
    /// The database failed during the commit, in a way that leaves open whether it happened.
    #[error("database failed during the commit; whether the change holds is not known")]
    OutcomeUnknown(#[source] DbErr),
    /// The store is closed, or being closed.
    #[error("database is closed")]
    Closed,
    /// The first call with the same idempotency key committed in the meantime.
    #[error("lost against a concurrent call with the same request id")]
    Concurrent,
    /// Too many audit events wait for the audit service.
    #[error(
        "{rows} audit events wait for the audit service, the oldest for {oldest_seconds} s; changes are refused until they are delivered"
    )]
    OutboxFull {
        /// How many wait.
        rows: i64,
        /// Age of the oldest.
        oldest_seconds: i64,
    },
    /// Too many audit events of one organization wait for the audit service.
    #[error(
        "{rows} audit events of organization `{organization}` wait for the audit service, at most {limit_rows} events or {limit_bytes} bytes may; its changes are refused until they are delivered"
    )]
    OrganizationOutboxFull {
        /// Whose changes are refused.
        organization: String,
        /// How many of its events wait.
        rows: i64,
        /// Most of them.
        limit_rows: i64,
        /// Most bytes of them.
        limit_bytes: i64,
    },
    /// The database or that of the audit service was set back to an older copy.
    #[error("{0}; changes are refused until {until}", until = .0.until())]
    Apart(crate::outbox::Apart),
    /// A stored value cannot be read.
    #[error("stored data is corrupt: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            StoreError::Database(error) => database_kind(error),
            StoreError::GroupUndone | StoreError::Concurrent => ErrorKind::Serialization,
            StoreError::Busy | StoreError::OutboxFull { .. } | StoreError::OrganizationOutboxFull { .. } => {
                ErrorKind::Unavailable
            }
            StoreError::TookTooLong { .. } | StoreError::Closed => ErrorKind::Unavailable,
            StoreError::OutcomeUnknown(_) => ErrorKind::Unknown,
            StoreError::InUse { .. } | StoreError::File { .. } | StoreError::Apart(_) => {
                ErrorKind::Unavailable
            }
            StoreError::Corrupt(_) | StoreError::Damaged { .. } => ErrorKind::Corrupt,
            StoreError::Config(_) | StoreError::OtherVersion(_) => ErrorKind::Other,
        }
    }

    /// What of a row cannot be read, because it is of another type than its column; none when it is the database that
    /// failed.
    pub fn unreadable(&self) -> Option<String> {
        match self {
            StoreError::Database(error) => match (error, sqlx_error(error)) {
                (_, Some(sqlx::Error::ColumnDecode { index, .. })) => {
                    Some(format!("the stored value of column {}", index.replace('"', "`")))
                }
                (_, Some(sqlx::Error::Decode(_)))
                | (DbErr::TryIntoErr { .. } | DbErr::Type(_) | DbErr::Json(_), _) => {
                    Some("a stored value".to_owned())
                }
                _ => None,
            },
            StoreError::Corrupt(what) => Some(what.clone()),
            _ => None,
        }
    }

    /// Whether a unique key exists already.
    pub fn is_unique(&self) -> bool {
        self.kind() == ErrorKind::Unique
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        StoreError::Database(error)
    }
}

/// Whether a transaction that failed with this error should be tried again from the start.
///
/// A service's error implements it by asking the [`StoreError`] within.
pub trait Retryable {
    /// True for lost races, never for what would fail again.
    fn is_retryable(&self) -> bool;
}

impl Retryable for StoreError {
    fn is_retryable(&self) -> bool {
        self.kind() == ErrorKind::Serialization
    }
}

fn sqlx_error(error: &DbErr) -> Option<&sqlx::Error> {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(e))
        | DbErr::Query(RuntimeErr::SqlxError(e))
        | DbErr::Conn(RuntimeErr::SqlxError(e)) => Some(e),
        _ => None,
    }
}

/// SQLite's primary result code.
fn sqlite_code(error: &DbErr) -> Option<u32> {
    let sqlx::Error::Database(error) = sqlx_error(error)? else { return None };
    error.try_downcast_ref::<sqlx::sqlite::SqliteError>()?;
    error.code()?.parse::<u32>().ok().map(|code| code & 0xff)
}

/// Whether SQLite may have undone the whole transaction with the statement, or its connection is no longer to be
/// trusted: NOMEM, READONLY, INTERRUPT, IOERR, CORRUPT, FULL, CANTOPEN, NOTADB, or no answer at all.
pub(crate) fn breaks_connection(error: &DbErr) -> bool {
    match sqlite_code(error) {
        Some(code) => matches!(code, 7..=11 | 13 | 14 | 26),
        None => matches!(sqlx_error(error), Some(sqlx::Error::WorkerCrashed | sqlx::Error::Io(_))),
    }
}

/// Whether SQLite found no room.
pub(crate) fn is_full(error: &DbErr) -> bool {
    sqlite_code(error) == Some(13)
}

/// Whether PostgreSQL answered that it did not commit. One that is being shut down, or is broken, may have committed
/// before it said so.
pub(crate) fn server_refused(error: &DbErr) -> bool {
    let Some(sqlx::Error::Database(error)) = sqlx_error(error) else { return false };
    error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some_and(|error| {
        let code = error.code();
        !["08", "57P", "58", "XX"].iter().any(|class| code.starts_with(class))
    })
}

/// What is wrong, in words for an operator.
pub(crate) fn plain(error: &DbErr) -> &'static str {
    match (sqlite_code(error), database_kind(error)) {
        (Some(13), _) => "no room is left: the disk, or the database's own limit, is full",
        (Some(10), _) => "the disk gives input/output errors",
        (Some(8), _) => "the database file cannot be written to",
        (Some(14), _) => "the database file cannot be opened",
        (Some(11 | 26), _) | (_, ErrorKind::Corrupt) => "the database file is damaged",
        (Some(5 | 6), _) => "another program holds the database",
        (_, ErrorKind::Unavailable) => "the database cannot be reached or takes no writes",
        _ => "the database refuses to write",
    }
}

fn database_kind(error: &DbErr) -> ErrorKind {
    if let Some(SqlErr::UniqueConstraintViolation(_)) = error.sql_err() {
        return ErrorKind::Unique;
    }
    match error {
        DbErr::ConnectionAcquire(_) => ErrorKind::Unavailable,
        DbErr::Exec(RuntimeErr::SqlxError(e)) | DbErr::Query(RuntimeErr::SqlxError(e)) => sqlx_kind(e, false),
        DbErr::Conn(RuntimeErr::SqlxError(e)) => sqlx_kind(e, true),
        DbErr::Conn(_) => ErrorKind::Unavailable,
        DbErr::TryIntoErr { .. } | DbErr::Type(_) | DbErr::Json(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Other,
    }
}

fn sqlx_kind(error: &sqlx::Error, connecting: bool) -> ErrorKind {
    match error {
        sqlx::Error::Database(e) => {
            let code = e.code().unwrap_or_default();
            let postgres = e.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some();
            match if postgres { postgres_kind(&code) } else { sqlite_kind(&code) } {
                ErrorKind::Other if connecting => ErrorKind::Unavailable,
                kind => kind,
            }
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => ErrorKind::Corrupt,
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => ErrorKind::Unavailable,
        _ if connecting => ErrorKind::Unavailable,
        _ => ErrorKind::Other,
    }
}

/// By SQLSTATE (PostgreSQL, appendix A).
fn postgres_kind(code: &str) -> ErrorKind {
    match code {
        "40001" | "40P01" => ErrorKind::Serialization,
        "23505" => ErrorKind::Unique,
        // Cancelled by statement_timeout, shutting down, starting up, lock not available, too many connections.
        "57014" | "57P01" | "57P02" | "57P03" | "55P03" => ErrorKind::Unavailable,
        _ if code.starts_with("08") || code.starts_with("53") || code.starts_with("58") => {
            ErrorKind::Unavailable
        }
        _ if code.starts_with("XX") => ErrorKind::Corrupt,
        _ => ErrorKind::Other,
    }
}

/// By extended result code (sqlite.org/rescode.html); its low byte is the primary code.
fn sqlite_kind(code: &str) -> ErrorKind {
    let Ok(code) = code.parse::<u32>() else { return ErrorKind::Other };
    match (code, code & 0xff) {
        (1555 | 2067, _) => ErrorKind::Unique,
        // BUSY, LOCKED
        (_, 5 | 6) => ErrorKind::Serialization,
        // NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN
        (_, 7..=10 | 13 | 14) => ErrorKind::Unavailable,
        // CORRUPT, NOTADB
        (_, 11 | 26) => ErrorKind::Corrupt,
        _ => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_table() {
        for (code, kind) in [
            ("40001", ErrorKind::Serialization),
            ("40P01", ErrorKind::Serialization),
            ("23505", ErrorKind::Unique),
            ("08006", ErrorKind::Unavailable),
            ("53300", ErrorKind::Unavailable),
            ("23503", ErrorKind::Other),
        ] {
            assert_eq!(postgres_kind(code), kind, "{code}");
        }
        for (code, kind) in [
            ("5", ErrorKind::Serialization),
            ("517", ErrorKind::Serialization),
            ("2067", ErrorKind::Unique),
            ("13", ErrorKind::Unavailable),
            ("10", ErrorKind::Unavailable),
            ("11", ErrorKind::Corrupt),
            ("787", ErrorKind::Other),
        ] {
            assert_eq!(sqlite_kind(code), kind, "{code}");
        }
    }

    #[test]
    fn display_hides_the_driver() {
        let error = StoreError::from(DbErr::Custom("relation secret_table does not exist".into()));
        assert_eq!(error.to_string(), "database error");
    }
}
