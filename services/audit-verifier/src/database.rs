//! A whole installation: every log of an audit database, checked against its own tree, tiles, head and signed
//! checkpoint, and every producer's sequence numbers over all logs.
//!
//! Everything is read in one read-only transaction, so a database in use is seen at one moment. Records are read in
//! pages while the page before is hashed on another thread.

mod log;
mod source;

use std::collections::BTreeMap;

use crate::error::{Failure, VerifyError};
use crate::merkle::Hash;
use crate::note::{Checkpoint, VerifierKey};
use crate::sequence::{LogSequences, Sequences};
use source::{Source, number, text};

/// How a log's newest checkpoint was believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointStatus {
    /// Signed by a key that the caller supplied.
    Trusted,
    /// Signed by the key that stands in the database itself: whoever can write the database could have replaced both.
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
    /// The keys that are trusted; without any, only the database's agreement with itself is shown.
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
    let mut sequences = Sequences::default();
    let mut logs = Vec::new();
    for head in heads {
        let milestones = milestones(&head.log, &head.origin, options)?;
        let (report, seen) = log::verify(source, head, milestones, options.keys.as_deref()).await?;
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
async fn refuse_strays(source: &mut Source, heads: &[source::Head]) -> Result<(), VerifyError> {
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

fn milestones(log: &str, origin: &str, options: &Options) -> Result<BTreeMap<u64, Hash>, VerifyError> {
    let mut found = BTreeMap::new();
    for note in &options.remembered {
        let remembered = match &options.keys {
            Some(keys) => Checkpoint::verified(note, keys),
            None => crate::note::Note::parse(note).and_then(|note| Checkpoint::of(&note)),
        }
        .map_err(|e| VerifyError::unreadable("remembered checkpoint", e))?;
        if remembered.origin != origin {
            continue;
        }
        if found.insert(remembered.size, remembered.root).is_some_and(|other| other != remembered.root) {
            let why = format!("two signed checkpoints of {} records contradict each other", remembered.size);
            return Err(Failure::above(log, why).into());
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
    use super::*;

    #[tokio::test]
    async fn what_is_not_an_audit_database_is_unreadable_and_not_sound() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text.db");
        std::fs::write(&text, "not a database, but long enough to look like one ".repeat(100)).unwrap();
        let empty = folder.path().join("empty.db");
        std::fs::write(&empty, "").unwrap();
        let absent = folder.path().join("absent.db");
        for path in [&text, &empty, &absent] {
            let error = verify_database(&path.display().to_string(), None).await.unwrap_err();
            assert!(matches!(error, VerifyError::Unreadable { .. }), "{path:?}: {error}");
        }
        assert!(!absent.exists());
        let error = verify_database("postgres://nobody@127.0.0.1:1/nothing", None).await.unwrap_err();
        assert!(matches!(error, VerifyError::Unreadable { .. }), "{error}");
    }
}
