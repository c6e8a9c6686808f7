//! Reading the tables. Every text is read as bytes and every number is cast, so that a value that a database would
//! refuse to decode is a finding and not an error of the reader.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use futures::TryStreamExt;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, SqliteConnection, postgres, sqlite,
};

use crate::error::{Failure, VerifyError};
use crate::record::{COLUMNS, SEPARATOR};

/// The tables without which there is no audit log. Databases of older releases lack the later ones.
const REQUIRED: [&str; 5] =
    ["audit_record", "audit_tile", "audit_head", "audit_checkpoint", "audit_producer"];
/// Parked events.
const PARKED: &str = "audit_parked";
/// Losses that an operator accepted.
const ACCEPTED: &str = "audit_accepted";
/// What every SQLite file begins with.
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

/// One value.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Number(i64),
    Bytes(Vec<u8>),
    Null,
}

/// What a query's column is read as.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Number,
    Bytes,
}

/// A value to bind.
#[derive(Debug, Clone, Copy)]
enum Bind<'a> {
    Number(i64),
    Text(&'a str),
}

pub(super) type Cells = Vec<Cell>;

pub(super) fn bytes(row: &Cells, at: usize) -> &[u8] {
    match row.get(at) {
        Some(Cell::Bytes(bytes)) => bytes,
        _ => &[],
    }
}

pub(super) fn text(row: &Cells, at: usize) -> String {
    String::from_utf8_lossy(bytes(row, at)).into_owned()
}

pub(super) fn number(row: &Cells, at: usize) -> Option<i64> {
    match row.get(at) {
        Some(Cell::Number(n)) => Some(*n),
        _ => None,
    }
}

/// A row of `audit_head`.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) log: String,
    pub(super) origin: String,
    pub(super) tree_size: i64,
    pub(super) root: Vec<u8>,
}

/// A row of `audit_checkpoint`.
#[derive(Debug)]
pub(super) struct StoredCheckpoint {
    pub(super) tree_size: i64,
    pub(super) root: Vec<u8>,
    pub(super) note: String,
    pub(super) verifier_key: String,
    pub(super) sign_time: i64,
}

/// A row of `audit_tile`.
#[derive(Debug)]
pub(super) struct StoredTile {
    pub(super) index: i64,
    pub(super) width: i64,
    pub(super) hashes: Vec<u8>,
}

/// An open database inside one read-only transaction.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    connection: Db,
    /// The tables of an audit log that the database has.
    tables: BTreeSet<String>,
}

#[derive(Debug)]
enum Db {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Source {
    pub(super) async fn open(database: &str) -> Result<Self, VerifyError> {
        let (name, connection) = match database.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                ("postgres database".to_owned(), Db::Postgres(open_postgres(database).await?))
            }
            Some(scheme) if scheme != "sqlite" && database.contains("://") => {
                let found = format!("databases of the scheme `{scheme}` are not known");
                return Err(VerifyError::not_a_database(format!("{scheme}://…"), found));
            }
            _ => {
                let path = database.trim_start_matches("sqlite:").trim_start_matches("//");
                let path = path.split('?').next().unwrap_or(path).to_owned();
                refuse_other_file(&path)?;
                let connection = open_sqlite(&path).await?;
                (path, Db::Sqlite(connection))
            }
        };
        let mut source = Self { name, connection, tables: BTreeSet::new() };
        match &mut source.connection {
            Db::Sqlite(db) => sqlx::query("BEGIN").execute(db).await.map(drop),
            Db::Postgres(db) => {
                sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(db).await.map(drop)
            }
        }
        .map_err(|e| VerifyError::unreadable(&source.name, e))?;
        source.find_tables().await?;
        Ok(source)
    }

    /// A database without any table of an audit log is something else; one with some of them has lost the others.
    async fn find_tables(&mut self) -> Result<(), VerifyError> {
        for table in REQUIRED.into_iter().chain([PARKED, ACCEPTED]) {
            let sql = match self.connection {
                Db::Sqlite(_) => "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1",
                Db::Postgres(_) => "SELECT CAST(COUNT(to_regclass($1)) AS BIGINT)",
            };
            let rows = self.query(sql.to_owned(), &[Bind::Text(table)], &[Kind::Number]).await?;
            if rows.first().and_then(|row| number(row, 0)) == Some(1) {
                self.tables.insert(table.to_owned());
            }
        }
        let missing: Vec<&str> = REQUIRED.into_iter().filter(|table| !self.tables.contains(*table)).collect();
        match missing.first() {
            None => Ok(()),
            Some(_) if missing.len() == REQUIRED.len() => {
                let found = "the database has none of the tables of one (`audit_record`, `audit_head`, …)";
                Err(VerifyError::not_a_database(&self.name, found))
            }
            Some(table) => Err(Failure::above("(all)", format!("the table `{table}` is missing")).into()),
        }
    }

    /// The expression that reads a text column as bytes.
    fn text(&self, column: &str) -> String {
        match self.connection {
            Db::Sqlite(_) => format!("CAST({column} AS BLOB)"),
            Db::Postgres(_) => format!("convert_to({column}, 'UTF8')"),
        }
    }

    /// The expression that reads a binary column whatever type the stored value has.
    fn blob(&self, column: &str) -> String {
        match self.connection {
            Db::Sqlite(_) => format!("CAST({column} AS BLOB)"),
            Db::Postgres(_) => column.to_owned(),
        }
    }

    async fn query(
        &mut self,
        sql: String,
        binds: &[Bind<'_>],
        kinds: &[Kind],
    ) -> Result<Vec<Cells>, VerifyError> {
        let rows = match &mut self.connection {
            Db::Sqlite(db) => sqlite_rows(db, sql, binds, kinds).await,
            Db::Postgres(db) => postgres_rows(db, sql, binds, kinds).await,
        };
        rows.map_err(|e| VerifyError::unreadable(&self.name, e))
    }

    pub(super) async fn heads(&mut self) -> Result<Vec<Head>, VerifyError> {
        let sql = format!(
            "SELECT {}, {}, CAST(tree_size AS BIGINT), {} FROM audit_head ORDER BY log",
            self.text("log"),
            self.text("origin"),
            self.blob("root_hash")
        );
        let rows = self.query(sql, &[], &[Kind::Bytes, Kind::Bytes, Kind::Number, Kind::Bytes]).await?;
        Ok(rows
            .iter()
            .map(|row| Head {
                log: text(row, 0),
                origin: text(row, 1),
                tree_size: number(row, 2).unwrap_or(-1),
                root: bytes(row, 3).to_vec(),
            })
            .collect())
    }

    /// When a loss of a log was last accepted, in microseconds of the Unix epoch.
    pub(super) async fn loss_accepted(&mut self, log: &str) -> Result<Option<i64>, VerifyError> {
        if !self.tables.contains(ACCEPTED) {
            return Ok(None);
        }
        let sql = format!(
            "SELECT CAST(generation AS BIGINT) FROM {ACCEPTED} WHERE log = $1 ORDER BY 1 DESC LIMIT 1"
        );
        let rows = self.query(sql, &[Bind::Text(log)], &[Kind::Number]).await?;
        Ok(rows.first().and_then(|row| number(row, 0)))
    }

    pub(super) async fn checkpoint(&mut self, log: &str) -> Result<Option<StoredCheckpoint>, VerifyError> {
        let sql = format!(
            "SELECT CAST(tree_size AS BIGINT), {}, {}, {}, CAST(sign_time AS BIGINT) FROM audit_checkpoint \
             WHERE log = $1",
            self.blob("root_hash"),
            self.text("note"),
            self.text("verifier_key")
        );
        let kinds = [Kind::Number, Kind::Bytes, Kind::Bytes, Kind::Bytes, Kind::Number];
        let rows = self.query(sql, &[Bind::Text(log)], &kinds).await?;
        Ok(rows.first().map(|row| StoredCheckpoint {
            tree_size: number(row, 0).unwrap_or(-1),
            root: bytes(row, 1).to_vec(),
            note: text(row, 2),
            verifier_key: text(row, 3),
            sign_time: number(row, 4).unwrap_or(-1),
        }))
    }

    /// Records from an index on: index, leaf hash, bytes, and the other columns in one line, because handing over a
    /// value costs more than joining twenty.
    pub(super) async fn records(
        &mut self,
        log: &str,
        from: i64,
        limit: i64,
    ) -> Result<Vec<Cells>, VerifyError> {
        let line = self.text(&format!("concat_ws('{SEPARATOR}', {})", COLUMNS.join(", ")));
        let sql = format!(
            "SELECT CAST(idx AS BIGINT), {}, {}, {line} FROM audit_record \
             WHERE log = $1 AND idx >= $2 ORDER BY idx LIMIT $3",
            self.blob("leaf_hash"),
            self.blob("body"),
        );
        let binds = [Bind::Text(log), Bind::Number(from), Bind::Number(limit)];
        self.query(sql, &binds, &[Kind::Number, Kind::Bytes, Kind::Bytes, Kind::Bytes]).await
    }

    pub(super) async fn tiles(
        &mut self,
        log: &str,
        level: i64,
        from: i64,
        to: i64,
    ) -> Result<Vec<StoredTile>, VerifyError> {
        let sql = format!(
            "SELECT CAST(idx AS BIGINT), CAST(width AS BIGINT), {} FROM audit_tile \
             WHERE log = $1 AND level = $2 AND idx >= $3 AND idx < $4 ORDER BY idx",
            self.blob("hashes")
        );
        let binds = [Bind::Text(log), Bind::Number(level), Bind::Number(from), Bind::Number(to)];
        let rows = self.query(sql, &binds, &[Kind::Number, Kind::Number, Kind::Bytes]).await?;
        Ok(rows
            .iter()
            .map(|row| StoredTile {
                index: number(row, 0).unwrap_or(-1),
                width: number(row, 1).unwrap_or(-1),
                hashes: bytes(row, 2).to_vec(),
            })
            .collect())
    }

    /// How many tiles a log has in each level.
    pub(super) async fn tile_counts(&mut self, log: &str) -> Result<BTreeMap<i64, i64>, VerifyError> {
        let sql = "SELECT CAST(level AS BIGINT), CAST(COUNT(*) AS BIGINT) FROM audit_tile WHERE log = $1 GROUP BY level";
        let rows = self.query(sql.to_owned(), &[Bind::Text(log)], &[Kind::Number, Kind::Number]).await?;
        Ok(rows.iter().filter_map(|row| Some((number(row, 0)?, number(row, 1)?))).collect())
    }

    /// The next log that has rows in a table, found by index rather than by a scan.
    pub(super) async fn next_log(
        &mut self,
        table: &str,
        after: Option<&str>,
    ) -> Result<Option<String>, VerifyError> {
        let column = self.text("log");
        let (sql, binds) = match &after {
            None => (format!("SELECT {column} FROM {table} ORDER BY log LIMIT 1"), vec![]),
            Some(after) => (
                format!("SELECT {column} FROM {table} WHERE log > $1 ORDER BY log LIMIT 1"),
                vec![Bind::Text(after)],
            ),
        };
        Ok(self.query(sql, &binds, &[Kind::Bytes]).await?.first().map(|row| text(row, 0)))
    }

    /// The last number acknowledged to each producer and epoch.
    pub(super) async fn acknowledged(&mut self) -> Result<BTreeMap<(String, String), u64>, VerifyError> {
        let sql = format!(
            "SELECT {}, {}, CAST(last_seq AS BIGINT) FROM audit_producer",
            self.text("service"),
            self.text("epoch")
        );
        let rows = self.query(sql, &[], &[Kind::Bytes, Kind::Bytes, Kind::Number]).await?;
        Ok(rows
            .iter()
            .map(|row| {
                let last = number(row, 2).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                ((text(row, 0), text(row, 1)), last)
            })
            .collect())
    }

    /// The sequence numbers of parked events, which wait until their log is repaired.
    pub(super) async fn parked(&mut self) -> Result<Vec<(String, String, u64)>, VerifyError> {
        if !self.tables.contains(PARKED) {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT {}, {}, CAST(seq AS BIGINT) FROM {PARKED} ORDER BY service, epoch, seq",
            self.text("service"),
            self.text("epoch")
        );
        let rows = self.query(sql, &[], &[Kind::Bytes, Kind::Bytes, Kind::Number]).await?;
        Ok(rows
            .iter()
            .map(|row| {
                let seq = number(row, 2).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                (text(row, 0), text(row, 1), seq)
            })
            .collect())
    }

    /// The event id beside an index.
    pub(super) async fn event_at(&mut self, log: &str, index: i64) -> Result<Option<String>, VerifyError> {
        let sql = format!("SELECT {} FROM audit_record WHERE log = $1 AND idx = $2", self.text("event_id"));
        let rows = self.query(sql, &[Bind::Text(log), Bind::Number(index)], &[Kind::Bytes]).await?;
        Ok(rows.first().map(|row| text(row, 0)))
    }

    /// The first index that a log has in the table of records.
    pub(super) async fn first_index(&mut self, log: &str) -> Result<Option<i64>, VerifyError> {
        let sql = "SELECT CAST(idx AS BIGINT) FROM audit_record WHERE log = $1 ORDER BY idx LIMIT 1";
        let rows = self.query(sql.to_owned(), &[Bind::Text(log)], &[Kind::Number]).await?;
        Ok(rows.first().and_then(|row| number(row, 0)))
    }

    /// Where the record of a sequence number stands: log, index, event id.
    pub(super) async fn record_of(
        &mut self,
        service: &str,
        epoch: &str,
        seq: u64,
    ) -> Result<Option<Cells>, VerifyError> {
        let sql = format!(
            "SELECT {}, CAST(idx AS BIGINT), {} FROM audit_record WHERE service = $1 AND epoch = $2 AND seq = $3",
            self.text("log"),
            self.text("event_id")
        );
        let seq = i64::try_from(seq).unwrap_or(i64::MAX);
        let binds = [Bind::Text(service), Bind::Text(epoch), Bind::Number(seq)];
        let rows = self.query(sql, &binds, &[Kind::Bytes, Kind::Number, Kind::Bytes]).await?;
        Ok(rows.into_iter().next())
    }

    /// Asks SQLite whether its file is sound; PostgreSQL has checksums of its own.
    pub(super) async fn check_storage(&mut self, indexes: bool) -> Result<(), VerifyError> {
        if matches!(self.connection, Db::Postgres(_)) {
            return Ok(());
        }
        let sql = if indexes { "PRAGMA integrity_check(1)" } else { "PRAGMA quick_check(1)" };
        let rows = self.query(sql.to_owned(), &[], &[Kind::Bytes]).await?;
        match rows.first().map(|row| text(row, 0)) {
            Some(answer) if answer == "ok" => Ok(()),
            answer => {
                let why = format!("the database file is damaged: {}", answer.unwrap_or_default());
                Err(Failure::above("(all)", why).into())
            }
        }
    }
}

async fn open_postgres(url: &str) -> Result<PgConnection, VerifyError> {
    let failed = |e: sqlx::Error| VerifyError::unreadable("postgres database", e);
    let options = postgres::PgConnectOptions::from_str(url).map_err(failed)?;
    PgConnection::connect_with(&options.disable_statement_logging()).await.map_err(failed)
}

async fn open_sqlite(path: &str) -> Result<SqliteConnection, VerifyError> {
    let failed = |e: sqlx::Error| VerifyError::unreadable(path, e);
    let options = sqlite::SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .create_if_missing(false)
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging();
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(failed)?;
    let Err(error) = probe(&mut connection).await else { return Ok(connection) };
    // A WAL database in a directory that cannot be written opens only as immutable, which is safe to say when there
    // is no log beside it that would have to be read too.
    if Path::new(&format!("{path}-wal")).exists() {
        return Err(failed(error));
    }
    let mut connection = SqliteConnection::connect_with(&options.immutable(true)).await.map_err(failed)?;
    probe(&mut connection).await.map_err(failed)?;
    Ok(connection)
}

async fn probe(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT COUNT(*) FROM sqlite_master").execute(connection).await.map(drop)
}

/// Says what a file is that is no SQLite database, before SQLite says less about it.
fn refuse_other_file(path: &str) -> Result<(), VerifyError> {
    let failed = |e: std::io::Error| VerifyError::unreadable(path, e);
    if std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Err(VerifyError::not_a_database(path, "it is a folder"));
    }
    let mut start = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(100).read_to_end(&mut start)).map_err(failed)?;
    let found = match start.as_slice() {
        start if start.starts_with(SQLITE_MAGIC) => return Ok(()),
        [] => "the file is empty",
        [b'{', ..] => "the file holds JSON, as an exported log does, and no SQLite database",
        _ => "the file is no SQLite database",
    };
    Err(VerifyError::not_a_database(path, found))
}

async fn sqlite_rows(
    db: &mut SqliteConnection,
    sql: String,
    binds: &[Bind<'_>],
    kinds: &[Kind],
) -> Result<Vec<Cells>, sqlx::Error> {
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for bind in binds {
        query = match bind {
            Bind::Number(n) => query.bind(*n),
            Bind::Text(text) => query.bind((*text).to_owned()),
        };
    }
    let mut rows = query.fetch(db);
    let mut found = Vec::new();
    while let Some(row) = rows.try_next().await? {
        found.push(kinds.iter().enumerate().map(|(at, kind)| sqlite_cell(&row, at, *kind)).collect());
    }
    Ok(found)
}

fn sqlite_cell(row: &sqlite::SqliteRow, at: usize, kind: Kind) -> Cell {
    let cell = match kind {
        Kind::Number => row.try_get::<Option<i64>, _>(at).map(|n| n.map(Cell::Number)),
        Kind::Bytes => row.try_get_unchecked::<Option<Vec<u8>>, _>(at).map(|b| b.map(Cell::Bytes)),
    };
    cell.ok().flatten().unwrap_or(Cell::Null)
}

async fn postgres_rows(
    db: &mut PgConnection,
    sql: String,
    binds: &[Bind<'_>],
    kinds: &[Kind],
) -> Result<Vec<Cells>, sqlx::Error> {
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for bind in binds {
        query = match bind {
            Bind::Number(n) => query.bind(*n),
            Bind::Text(text) => query.bind((*text).to_owned()),
        };
    }
    let mut rows = query.fetch(db);
    let mut found = Vec::new();
    while let Some(row) = rows.try_next().await? {
        found.push(kinds.iter().enumerate().map(|(at, kind)| postgres_cell(&row, at, *kind)).collect());
    }
    Ok(found)
}

fn postgres_cell(row: &postgres::PgRow, at: usize, kind: Kind) -> Cell {
    let cell = match kind {
        Kind::Number => row.try_get::<Option<i64>, _>(at).map(|n| n.map(Cell::Number)),
        Kind::Bytes => row.try_get::<Option<Vec<u8>>, _>(at).map(|b| b.map(Cell::Bytes)),
    };
    cell.ok().flatten().unwrap_or(Cell::Null)
}
