//! What is particular to an SQLite file: its path, and the lock that keeps a second process away.

use crate::tx::Tx;
use crate::{DatabaseConfig, StoreError};
use pavior_files::{Lock, LockError};
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{self, ConnectOptions as _, Connection as _, query_scalar};
use sea_orm::{DbErr, RuntimeErr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// SQLITE_CORRUPT and SQLITE_NOTADB.
const DAMAGED: [u32; 2] = [11, 26];

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

/// Looks through a file with changes beside it that were not written into it: after a crash they belong to it, and after an
/// older copy was put in its place they are another database's, with which SQLite would go on all the same. To look
/// changes nothing.
pub(crate) async fn check_crashed(config: &DatabaseConfig, database: &Path) -> Result<(), StoreError> {
    // Where a link leads, SQLite has its other files beside that.
    let real = where_it_leads(database);
    let size = |file: &Path| std::fs::metadata(file).map_or(0, |file| file.len());
    let mut left = real.clone().into_os_string();
    left.push("-wal");
    if size(left.as_ref()) == 0 {
        return Ok(());
    }
    let damaged = |found| Err(StoreError::Damaged { path: database.display().to_string(), found });
    if size(&real) == 0 {
        // SQLite would remove what is beside it.
        return damaged(if real.exists() { "the file is empty" } else { "the file is missing" }.to_owned());
    }
    tracing::info!(database = %database.display(), "changes are left beside the file: it is looked through");
    let options: SqliteConnectOptions = config.url.expose().parse().map_err(connect_error)?;
    let options = options.read_only(true).create_if_missing(false).disable_statement_logging();
    match integrity(&options).await {
        Ok(found) if found == "ok" => Ok(()),
        Ok(found) => damaged(found),
        Err(error) => match damage(&error) {
            Some(found) => damaged(found),
            None => Err(connect_error(error).into()),
        },
    }
}

/// Where the file is, or would be made.
fn where_it_leads(database: &Path) -> PathBuf {
    /// As many links as Linux follows.
    const LINKS: usize = 40;
    let mut at = database.to_owned();
    for _ in 0..LINKS {
        let Ok(to) = std::fs::read_link(&at) else { break };
        at = at.parent().unwrap_or(Path::new("")).join(to);
    }
    std::fs::canonicalize(&at).unwrap_or(at)
}

/// The first thing that SQLite finds wrong with a file; `ok` where it finds none.
async fn integrity(options: &SqliteConnectOptions) -> Result<String, sqlx::Error> {
    let mut connection = options.connect().await?;
    let found = query_scalar::<_, String>("PRAGMA integrity_check(1)").fetch_one(&mut connection).await;
    // Nothing depends on how it ends: it has only read.
    let _ = connection.close().await;
    found
}

/// What an error says of the file, where it is the file that is wrong.
fn damage(error: &sqlx::Error) -> Option<String> {
    let sqlx::Error::Database(error) = error else { return None };
    // The lowest byte is the primary code, the others say more (https://www.sqlite.org/rescode.html).
    let code: u32 = error.code()?.parse().ok()?;
    DAMAGED.contains(&(code & 0xff)).then(|| error.message().to_owned())
}

fn connect_error(error: sea_orm::sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)))
}

/// Takes `<database file>.lock`, or says who has it.
pub(crate) fn lock(database: &Path) -> Result<Lock, StoreError> {
    let shown = database.display().to_string();
    let failed = |source| StoreError::File { path: shown.clone(), source };
    if let Some(parent) = database.parent().filter(|p| !p.as_os_str().is_empty()) {
        pavior_files::private_directory(parent).map_err(failed)?;
    }
    let real = std::fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
    let mut path = real.into_os_string();
    path.push(".lock");
    Lock::take(path.as_ref()).map_err(|error| match error {
        LockError::Held { holder } => StoreError::InUse { path: shown.clone(), holder },
        LockError::File(source) => failed(source),
    })
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
