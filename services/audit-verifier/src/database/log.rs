//! One log: its records in order, the tiles over them, its head and its checkpoint.

use std::collections::BTreeMap;

use super::keys::LogKeys;
use super::source::{Cells, Head, Source, StoredCheckpoint, StoredTile, bytes, number};
use super::{CheckpointStatus, LogReport};
use crate::error::{Failure, VerifyError};
use crate::merkle::{Hash, Tree, leaf_hash};
use crate::note::{Checkpoint, VerifierKey};
use crate::record::{Lost, Record, SEPARATOR, differing_column};
use crate::sequence::LogSequences;

/// Hashes in a full tile.
const TILE: usize = 256;
/// Records read at once; a multiple of [`TILE`].
const PAGE: usize = 16 * TILE;

/// A tile as it must be.
struct Expected {
    level: usize,
    index: u64,
    hashes: Vec<Hash>,
}

/// What has been seen of a log.
struct LogCheck {
    log: String,
    tree: Tree,
    sequences: LogSequences,
    /// The unfinished tile of each level.
    open: Vec<Vec<Hash>>,
    /// Finished tiles of the page just read.
    done: Vec<Expected>,
    milestones: BTreeMap<u64, Hash>,
    line: String,
    /// When the last record was taken.
    last_time: i64,
}

pub(super) async fn verify(
    source: &mut Source,
    head: &Head,
    milestones: BTreeMap<u64, Hash>,
    keys: &LogKeys,
) -> Result<(LogReport, LogSequences), VerifyError> {
    let stored = source.checkpoint(&head.log).await?;
    let mut check = LogCheck {
        log: head.log.clone(),
        tree: Tree::new(),
        sequences: LogSequences::default(),
        open: vec![Vec::new()],
        done: Vec::new(),
        milestones,
        line: String::new(),
        last_time: 0,
    };
    let mut page = read(source, &head.log, i64::MIN, 0).await?;
    while !page.is_empty() {
        let last = page.last().and_then(|row| number(row, 0)).unwrap_or(i64::MAX);
        let expected_next = check.tree.size() + page.len() as u64;
        let full = page.len() == PAGE;
        // Hashing runs beside reading; what was hashed is compared with its tiles before the next page is.
        let hashed = tokio::task::spawn_blocking(move || check.page(&page));
        let next = match full {
            true => read(source, &head.log, last.saturating_add(1), expected_next).await,
            false => Ok(Vec::new()),
        };
        let (seen, failure) = hashed.await.map_err(|e| VerifyError::unreadable("page", e))?;
        check = seen;
        let done = std::mem::take(&mut check.done);
        compare_tiles(source, &check.log, done).await?;
        if let Some(failure) = failure {
            // What looks wrong here may follow from a record before it, which only its tile knows.
            check.compare_open_tile(source).await?;
            return Err(failure.into());
        }
        page = next?;
    }
    let records = check.tree.size();
    let stored = stored.ok_or_else(|| Failure::above(&head.log, "the log has no checkpoint"))?;
    let signed = signed(&head.log, &stored, keys);
    // What is missing is told before what its tiles then have too much.
    if let Ok((signed, _)) = &signed {
        check.has_the_signed_size(signed)?;
    }
    check.finish_tiles(source).await?;
    let report = check.above_the_records(head, &stored, signed?)?;
    debug_assert_eq!(report.records, records);
    Ok((report, check.sequences))
}

/// Reads a page; a page that the database cannot give is a finding at its first record.
async fn read(source: &mut Source, log: &str, from: i64, next: u64) -> Result<Vec<Cells>, VerifyError> {
    source
        .records(log, from, PAGE as i64)
        .await
        .map_err(|e| Failure::at(log, next, None, format!("records from here on cannot be read: {e}")).into())
}

impl LogCheck {
    /// Takes the rows up to the first that is wrong.
    fn page(mut self, rows: &[Cells]) -> (Self, Option<Failure>) {
        let failure = rows.iter().find_map(|row| self.record(row).err());
        (self, failure)
    }

    /// Compares what has been seen of the unfinished tile of leaves with the beginning of the stored one.
    async fn compare_open_tile(&self, source: &mut Source) -> Result<(), VerifyError> {
        let index = self.tree.size() / TILE as u64;
        let hashes = self.open[0].clone();
        let stored = source.tiles(&self.log, 0, index as i64, index as i64 + 1).await?.into_iter().next();
        let Some(mut stored) = stored else { return Ok(()) };
        stored.hashes.truncate(hashes.len() * 32);
        stored.width = hashes.len() as i64;
        Ok(compare_tile(&self.log, &Expected { level: 0, index, hashes }, Some(stored))?)
    }

    fn record(&mut self, row: &Cells) -> Result<(), Failure> {
        let index = self.tree.size();
        let columns = bytes(row, 3);
        let event = || {
            let end = columns.iter().position(|b| *b == SEPARATOR as u8).unwrap_or(columns.len());
            Some(String::from_utf8_lossy(&columns[..end]).into_owned()).filter(|id| !id.is_empty())
        };
        let bad = |why: String| Failure::at(&self.log, index, event(), why);
        match number(row, 0) {
            Some(found) if u64::try_from(found) == Ok(index) => {}
            Some(found) if found > 0 => {
                return Err(Failure::at(
                    &self.log,
                    index,
                    None,
                    format!("it is missing; the next one is {found}"),
                ));
            }
            _ => return Err(bad("a record stands at an index that is not one".to_owned())),
        }
        let body = bytes(row, 2);
        let leaf = leaf_hash(body);
        if bytes(row, 1) != leaf {
            return Err(bad("its bytes do not hash to its leaf hash: one of the two was changed".to_owned()));
        }
        let record = Record::parse(body).map_err(&bad)?;
        if record.log != self.log {
            return Err(bad(format!("it was written for log `{}`", record.log)));
        }
        let received = record.comparison(body.len(), &mut self.line).map_err(&bad)?;
        if self.line.as_bytes() != columns {
            let column = differing_column(&self.line, columns);
            return Err(bad(format!("column `{column}` does not say what the record says")));
        }
        let producer = &record.producer;
        self.sequences.push(&producer.service, &producer.epoch, producer.sequence).map_err(&bad)?;
        for Lost { service, epoch, first, last } in record.accepted(body).map_err(&bad)? {
            self.sequences.accept(&service, &epoch, first, last);
        }
        self.tree.push(leaf);
        self.push_hash(0, leaf);
        self.last_time = received;
        match self.milestones.remove(&(index + 1)) {
            Some(root) if root != self.tree.root() => {
                let why =
                    format!("the first {} records are not those of a checkpoint seen before", index + 1);
                Err(Failure::above(&self.log, why))
            }
            _ => Ok(()),
        }
    }

    fn push_hash(&mut self, level: usize, hash: Hash) {
        if self.open.len() == level {
            self.open.push(Vec::with_capacity(TILE));
        }
        self.open[level].push(hash);
        if self.open[level].len() == TILE {
            let hashes = std::mem::replace(&mut self.open[level], Vec::with_capacity(TILE));
            let mut subtree = Tree::new();
            hashes.iter().for_each(|hash| subtree.push(*hash));
            let index = (self.tree.size() >> (8 * (level + 1))) - 1;
            self.done.push(Expected { level, index, hashes });
            self.push_hash(level + 1, subtree.root());
        }
    }

    /// The tiles that are not full, and that there are no others.
    async fn finish_tiles(&mut self, source: &mut Source) -> Result<(), VerifyError> {
        let size = self.tree.size();
        let mut partial = Vec::new();
        let mut counts = BTreeMap::new();
        for (level, hashes) in self.open.iter().enumerate() {
            let entries = size >> (8 * level);
            if entries > 0 {
                counts.insert(level as i64, entries.div_ceil(TILE as u64) as i64);
            }
            if !hashes.is_empty() {
                partial.push(Expected { level, index: entries / TILE as u64, hashes: hashes.clone() });
            }
        }
        compare_tiles(source, &self.log, partial).await?;
        if source.tile_counts(&self.log).await? != counts {
            return Err(Failure::above(&self.log, "there are more tiles than the records have").into());
        }
        Ok(())
    }

    fn has_the_signed_size(&self, signed: &Checkpoint) -> Result<(), Failure> {
        let (records, size) = (self.tree.size(), signed.size);
        let why = match size.cmp(&records) {
            std::cmp::Ordering::Equal => return Ok(()),
            std::cmp::Ordering::Greater => format!("it is missing: the signed checkpoint has {size} records"),
            std::cmp::Ordering::Less => format!("it is beyond the signed checkpoint of {size} records"),
        };
        Err(Failure::at(&self.log, records.min(size), None, why))
    }

    /// Head, checkpoint and signature.
    fn above_the_records(
        &self,
        head: &Head,
        stored: &StoredCheckpoint,
        (signed, status): (Checkpoint, CheckpointStatus),
    ) -> Result<LogReport, Failure> {
        let (log, records, root) = (self.log.as_str(), self.tree.size(), self.tree.root());
        if signed.root != root {
            let why = format!("the {records} records and their tiles do not hash to the signed root");
            return Err(Failure::above(log, why));
        }
        let size = records as i64;
        if signed.origin != head.origin || signed.origin.rsplit('/').next() != Some(log) {
            return Err(Failure::above(log, format!("the checkpoint is that of `{}`", signed.origin)));
        }
        if (head.tree_size, head.root.as_slice()) != (size, &root[..]) {
            return Err(Failure::above(log, "the head is not what the signed checkpoint says"));
        }
        if (stored.tree_size, stored.root.as_slice(), stored.sign_time) != (size, &root[..], self.last_time) {
            let why = "the checkpoint's columns are not what its note and the last record say";
            return Err(Failure::above(log, why));
        }
        if let Some((size, _)) = self.milestones.iter().find(|(size, _)| **size > records) {
            let why =
                format!("it is missing: a checkpoint of {size} records was seen before, so the log was cut");
            return Err(Failure::at(log, records, None, why));
        }
        Ok(LogReport {
            log: log.to_owned(),
            origin: signed.origin,
            records,
            root,
            checkpoint: status,
            loss_accepted: None,
        })
    }
}

fn signed(
    log: &str,
    stored: &StoredCheckpoint,
    keys: &LogKeys,
) -> Result<(Checkpoint, CheckpointStatus), Failure> {
    let own = VerifierKey::parse(&stored.verifier_key)
        .map_err(|e| Failure::above(log, format!("the checkpoint's verifier key: {e}")))?;
    // The key beside the note must have made it even when another one is trusted: clients are shown it.
    let own = Checkpoint::verified(&stored.note, &[own])
        .map_err(|e| Failure::above(log, format!("the checkpoint: {e}")))?;
    match keys.trusted(&stored.note) {
        None => Ok((own, CheckpointStatus::SelfDeclared)),
        Some(Ok(trusted)) => Ok((trusted, CheckpointStatus::Trusted)),
        Some(Err(error)) => Err(Failure::above(log, format!("the checkpoint: {error}"))),
    }
}

async fn compare_tiles(source: &mut Source, log: &str, expected: Vec<Expected>) -> Result<(), VerifyError> {
    let mut levels: BTreeMap<usize, Vec<Expected>> = BTreeMap::new();
    expected.into_iter().for_each(|tile| levels.entry(tile.level).or_default().push(tile));
    for (level, tiles) in levels {
        let (from, to) = match (tiles.first(), tiles.last()) {
            (Some(first), Some(last)) => (first.index as i64, last.index as i64 + 1),
            _ => continue,
        };
        let mut stored = source.tiles(log, level as i64, from, to).await?.into_iter();
        for tile in tiles {
            compare_tile(log, &tile, stored.next())?;
        }
    }
    Ok(())
}

fn compare_tile(log: &str, expected: &Expected, stored: Option<StoredTile>) -> Result<(), Failure> {
    let Expected { level, index, hashes } = expected;
    let first = |entry: usize| (index * TILE as u64 + entry as u64) << (8 * level);
    let name = format!("tile {index} of level {level}");
    let Some(stored) = stored.filter(|tile| tile.index == *index as i64) else {
        return Err(Failure::at(log, first(0), None, format!("{name} is missing")));
    };
    let found = stored.hashes.chunks(32);
    for (entry, (expected, found)) in hashes.iter().zip(found.chain(std::iter::repeat(&[][..]))).enumerate() {
        if expected[..] != *found {
            let why = format!("{name} has another hash in place {entry}: the record or the tile was changed");
            return Err(Failure::at(log, first(entry), None, why));
        }
    }
    if stored.width != hashes.len() as i64 || stored.hashes.len() != hashes.len() * 32 {
        let why = format!("{name} has a width of {} instead of {}", stored.width, hashes.len());
        return Err(Failure::at(log, first(hashes.len()), None, why));
    }
    Ok(())
}
