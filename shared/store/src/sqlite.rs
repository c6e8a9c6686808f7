//! What is particular to an SQLite file: its path, and the lock that keeps a second process away.

use crate::tx::Tx;
use crate::{DatabaseConfig, StoreError};
use sea_orm::sqlx::ConnectOptions as _;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::{DbErr, RuntimeErr};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The file of `sqlite://path?mode=rwc`.
pub(crate) fn path(url: &str) -> Result<PathBuf, StoreError> {
    let rest = url.strip_prefix("sqlite:").unwrap_or(url);
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, options) = rest.split_once('?').unwrap_or((rest, ""));
    if path.is_empty() || path.contains(":memory:") || options.contains("mode=memory") {
        let problem = "`url`: SQLite needs a file (`sqlite://path?mode=rwc`); in memory is not supported";
        return Err(StoreError::Config(problem.to_owned()));
    }
    if path.contains('%') {
        return Err(StoreError::Config("`url`: the SQLite path must not contain `%`".to_owned()));
    }
    Ok(PathBuf::from(path))
}

/// How every connection to the file is set up.
pub(crate) fn durable(options: SqliteConnectOptions, busy: Duration) -> SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(busy)
        .foreign_keys(true)
}

/// Opens the file for its writer.
#[derive(Debug, Clone)]
pub(crate) struct Opener {
    options: SqliteConnectOptions,
}

impl Opener {
    pub(crate) fn new(config: &DatabaseConfig) -> Result<Self, StoreError> {
        let options: SqliteConnectOptions = config.url.expose().parse().map_err(connect_error)?;
        let busy = Duration::from_millis(config.busy_timeout_ms);
        Ok(Self { options: durable(options, busy).disable_statement_logging() })
    }

    /// A connection. Only the first may make the file: one that has gone missing must not be replaced by an empty one.
    pub(crate) async fn open(&self, first: bool) -> Result<Tx, DbErr> {
        let options =
            if first { self.options.clone() } else { self.options.clone().create_if_missing(false) };
        Tx::sqlite(options.connect().await.map_err(connect_error)?).await
    }
}

fn connect_error(error: sea_orm::sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)))
}

/// Held as long as the store lives. The lock goes with the open file, so a killed process leaves none behind.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes `<database file>.lock`, or says who has it.
    pub(crate) fn take(database: &std::path::Path) -> Result<Self, StoreError> {
        let shown = database.display().to_string();
        let failed = |source| StoreError::File { path: shown.clone(), source };
        if let Some(parent) = database.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let real = std::fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
        let mut lock = real.into_os_string();
        lock.push(".lock");
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&lock)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder =
                    if holder.trim().is_empty() { "unknown".to_owned() } else { holder.trim().to_owned() };
                return Err(StoreError::InUse { path: shown, holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Only for the message above; the lock itself does not depend on it.
        let note = format!("process {}", std::process::id());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(note.as_bytes()))
            .map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_table() {
        for (url, want) in
            [("sqlite://a/b.db?mode=rwc", "a/b.db"), ("sqlite:///a/b.db", "/a/b.db"), ("sqlite:b.db", "b.db")]
        {
            assert_eq!(path(url).unwrap(), PathBuf::from(want));
        }
        for bad in
            ["sqlite::memory:", "sqlite://:memory:", "sqlite://x?mode=memory", "sqlite://", "sqlite://a%20b"]
        {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
