//! A whole installation: every log of an audit database, checked against its own tree, tiles, head and signed
//! checkpoint, and every producer's sequence numbers over all logs.
//!
//! Everything is read in one read-only transaction, so a database in use is seen at one moment. Records are read in
//! pages while the page before is hashed on another thread.

mod keys;
mod log;
mod source;

use std::collections::BTreeMap;

use crate::error::{Failure, VerifyError};
use crate::merkle::Hash;
use crate::note::{Checkpoint, Note, VerifierKey};
use crate::sequence::{LogSequences, Sequences};
use keys::{LogKeys, refuse_keys_of_no_log};
use source::{Head, Source, number, text};

/// How a log's newest checkpoint was believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointStatus {
    /// Signed by a key that the caller supplied.
    Trusted,
    /// Signed by the key that stands in the database itself, as no supplied key is of this log: whoever can write the
    /// database could have replaced both.
    SelfDeclared,
}

/// A log that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogReport {
    /// The organization id; `pavior` for the installation's own log.
    pub log: String,
    /// The log's name in its checkpoint.
    pub origin: String,
    /// How many records.
    pub records: u64,
    /// The tree hash over them.
    pub root: Hash,
    /// How the checkpoint was believed.
    pub checkpoint: CheckpointStatus,
    /// When an operator last accepted that records of the log are lost, in microseconds of the Unix epoch, as the database
    /// says; nothing when no loss was accepted. What was lost is not proved about: only a checkpoint from before shows it.
    pub loss_accepted: Option<i64>,
}

/// A database that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its logs, by name.
    pub logs: Vec<LogReport>,
    /// How many pairs of producer and epoch; their sequence numbers have no gap.
    pub producers: usize,
    /// How many events wait until their log is repaired. They are acknowledged, but no records: nothing is proved of
    /// them.
    pub parked: usize,
    /// How many records are missing whose loss an operator accepted, as the logs say (`platform.restore`).
    pub accepted_losses: u64,
}

impl Report {
    /// The records of all logs.
    pub fn records(&self) -> u64 {
        self.logs.iter().map(|log| log.records).sum()
    }
}

/// What to check against.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The keys that are trusted. A key of one log is asked about that log only, and any other key about every log. Of
    /// a log without a key, only the database's agreement with itself is shown.
    pub keys: Option<Vec<VerifierKey>>,
    /// Signed notes that were seen before: each log must still begin with what they say, which is what finds a log
    /// that was cut or replaced together with its checkpoint.
    pub remembered: Vec<String>,
    /// Also compares every SQLite index with its table, which takes longer than all the rest.
    pub indexes: bool,
}

/// Verifies every log of a database: the path of a SQLite file, `sqlite://…`, or `postgres://…`.
pub async fn verify_database(database: &str, keys: Option<Vec<VerifierKey>>) -> Result<Report, VerifyError> {
    verify_database_with(database, Options { keys, ..Options::default() }).await
}

/// As [`verify_database`], with all options.
pub async fn verify_database_with(database: &str, options: Options) -> Result<Report, VerifyError> {
    let mut source = Source::open(database).await?;
    match verify_source(&mut source, &options).await {
        Err(VerifyError::Tampered(mut failure)) => {
            // What was found in a tile or by a missing number has a record that can perhaps still be named.
            if let (Some(index), None) = (failure.first_bad_index, &failure.event_id) {
                let index = i64::try_from(index).unwrap_or(i64::MAX);
                failure.event_id = source.event_at(&failure.log, index).await.ok().flatten();
            }
            Err(failure.into())
        }
        other => other,
    }
}

async fn verify_source(source: &mut Source, options: &Options) -> Result<Report, VerifyError> {
    let heads = source.heads().await?;
    refuse_strays(source, &heads).await?;
    let keys = options.keys.as_deref().unwrap_or_default();
    refuse_keys_of_no_log(keys, &heads)?;
    let remembered = remembered(options, &heads)?;
    let mut sequences = Sequences::default();
    let mut logs = Vec::new();
    for head in &heads {
        let milestones = milestones(head, &remembered)?;
        let (report, seen) = log::verify(source, head, milestones, &LogKeys::of(head, keys, &heads)).await?;
        sequences.add(seen);
        let loss_accepted = source.loss_accepted(&report.log).await?;
        logs.push(LogReport { loss_accepted, ..report });
    }
    let parked = add_parked(source, &mut sequences).await?;
    let (producers, accepted_losses) = check_sequences(source, sequences).await?;
    source.check_storage(options.indexes).await?;
    Ok(Report { logs, producers, parked, accepted_losses })
}

/// Rows of a log whose head is gone.
async fn refuse_strays(source: &mut Source, heads: &[Head]) -> Result<(), VerifyError> {
    for table in ["audit_record", "audit_tile", "audit_checkpoint"] {
        let mut after = None;
        while let Some(log) = source.next_log(table, after.as_deref()).await? {
            if !heads.iter().any(|head| head.log == log) {
                let why = format!("rows stand in `{table}`, but the log has no head");
                let first = source.first_index(&log).await?.and_then(|index| u64::try_from(index).ok());
                return Err(Failure { first_bad_index: first, ..Failure::above(&log, why) }.into());
            }
            after = Some(log);
        }
    }
    Ok(())
}

/// The checkpoints that the caller has seen before. The caller vouches for one that no supplied key may have signed. One
/// of a log that is not there shows that the log was removed.
fn remembered(options: &Options, heads: &[Head]) -> Result<Vec<Checkpoint>, VerifyError> {
    let mut remembered = Vec::new();
    for text in &options.remembered {
        let unreadable = |e| VerifyError::unreadable("remembered checkpoint", e);
        let note = Note::parse(text).map_err(unreadable)?;
        let checkpoint = Checkpoint::of(&note).map_err(unreadable)?;
        let keys = options.keys.iter().flatten().filter(|key| key.covers(&checkpoint.origin));
        let keys: Vec<VerifierKey> = keys.cloned().collect();
        if !keys.is_empty() {
            Checkpoint::verified(text, &keys).map_err(unreadable)?;
        }
        let Checkpoint { origin, size, .. } = &checkpoint;
        if *size > 0 && !heads.iter().any(|head| head.origin == *origin) {
            let log = origin.rsplit('/').next().unwrap_or(origin);
            let why =
                format!("no log is named `{origin}`, but a checkpoint of {size} records was seen before");
            return Err(Failure::at(log, 0, None, why).into());
        }
        remembered.push(checkpoint);
    }
    Ok(remembered)
}

/// The roots that a log had at the sizes of remembered checkpoints.
fn milestones(head: &Head, remembered: &[Checkpoint]) -> Result<BTreeMap<u64, Hash>, Failure> {
    let mut found = BTreeMap::new();
    for Checkpoint { size, root, .. } in remembered.iter().filter(|seen| seen.origin == head.origin) {
        if found.insert(*size, *root).is_some_and(|other| other != *root) {
            let why = format!("two signed checkpoints of {size} records contradict each other");
            return Err(Failure::above(&head.log, why));
        }
    }
    Ok(found)
}

/// The numbers of parked events are not missing, only not recorded yet.
async fn add_parked(source: &mut Source, sequences: &mut Sequences) -> Result<usize, VerifyError> {
    let parked = source.parked().await?;
    let mut waiting = LogSequences::default();
    for (service, epoch, seq) in &parked {
        waiting.push(service, epoch, *seq).map_err(|why| Failure::above("(all)", why))?;
    }
    sequences.add(waiting);
    Ok(parked.len())
}

async fn check_sequences(source: &mut Source, sequences: Sequences) -> Result<(usize, u64), VerifyError> {
    let acknowledged = source.acknowledged().await?;
    let producers = sequences.producers();
    let gap = match sequences.check(&acknowledged) {
        Ok(lost) => return Ok((producers, lost)),
        Err(gap) => gap,
    };
    let place = match gap.shows_at {
        Some(seq) => source.record_of(&gap.service, &gap.epoch, seq).await?,
        None => None,
    };
    Err(VerifyError::Tampered(match place {
        Some(row) => Failure {
            log: text(&row, 0),
            first_bad_index: number(&row, 1).and_then(|n| u64::try_from(n).ok()),
            event_id: Some(text(&row, 2)),
            why: gap.why,
        },
        None => Failure::above("(all)", gap.why),
    }))
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;

    async fn refused(database: &str) -> (String, String) {
        match verify_database(database, None).await.unwrap_err() {
            VerifyError::NotAnAuditLog { what, found, wanted } => {
                assert!(wanted.contains("for example DATA/audit.db"), "{wanted}");
                (what, found)
            }
            other => panic!("{database}: {other:?}"),
        }
    }

    async fn sqlite(path: &std::path::Path, sql: &str) {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut db).await.unwrap();
        db.close().await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_audit_database_is_named_with_what_would_be_right() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content, found) in [
            (
                "text.db",
                "not a database, but long enough to look like one ".repeat(100),
                "the file is no SQLite database",
            ),
            ("empty.db", String::new(), "the file is empty"),
            (
                "acme.jsonl",
                r#"{"log":"acme"}"#.to_owned(),
                "the file holds JSON, as an exported log does, and no SQLite database",
            ),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            let path = path.display().to_string();
            assert_eq!(refused(&path).await, (path.clone(), found.to_owned()));
        }
        let inside = folder.path().display().to_string();
        assert_eq!(refused(&inside).await, (inside.clone(), "it is a folder".to_owned()));
        let other = folder.path().join("catalog.db");
        sqlite(&other, "CREATE TABLE entity (id TEXT)").await;
        let (_, found) = refused(&other.display().to_string()).await;
        assert!(found.starts_with("the database has none of the tables of one"), "{found}");
        let (what, found) = refused("mysql://user:secret@host/audit").await;
        assert_eq!(
            (what.as_str(), found.as_str()),
            ("mysql://…", "databases of the scheme `mysql` are not known")
        );
    }

    #[tokio::test]
    async fn a_table_that_is_missing_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.db");
        sqlite(&path, "CREATE TABLE audit_record (log TEXT)").await;
        let error = verify_database(&path.display().to_string(), None).await.unwrap_err();
        assert_eq!(error.to_string(), "log `(all)`: the table `audit_tile` is missing");
        assert!(error.failure().is_some());
    }

    #[tokio::test]
    async fn what_cannot_be_reached_is_unreadable() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent.db");
        for database in [absent.display().to_string().as_str(), "postgres://nobody@127.0.0.1:1/nothing"] {
            let error = verify_database(database, None).await.unwrap_err();
            assert!(matches!(error, VerifyError::Unreadable { .. }), "{database}: {error}");
        }
        assert!(!absent.exists());
    }
}
