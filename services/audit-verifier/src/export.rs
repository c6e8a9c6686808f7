//! An exported log: one canonical record on each line, and on the last one `{"checkpoint": "<signed note>"}`.

use std::io::BufRead;

use serde::Deserialize;

use crate::error::{Failure, VerifyError};
use crate::merkle::{Hash, Tree, leaf_hash};
use crate::note::{Checkpoint, VerifierKey};
use crate::record::Record;
use crate::sequence::LogSequences;

/// An exported log that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportReport {
    /// The log's name in its checkpoint.
    pub origin: String,
    /// How many records were read.
    pub records: u64,
    /// The tree hash over them.
    pub root: Hash,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LastLine {
    checkpoint: String,
}

/// Verifies a whole exported log, from its first record on, in constant memory.
///
/// The bytes of each line are the bytes of the leaf: an export that re-serialised its records does not verify.
pub fn verify_export(mut reader: impl BufRead, keys: &[VerifierKey]) -> Result<ExportReport, VerifyError> {
    let mut tree = Tree::new();
    let mut log: Option<String> = None;
    let mut sequences = LogSequences::default();
    let mut line = Vec::new();
    loop {
        let name = log.clone().unwrap_or_else(|| "(export)".to_owned());
        let index = tree.size();
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(|e| VerifyError::unreadable("export", e))?;
        if read == 0 {
            return Err(Failure::at(&name, index, None, "the export ends without a checkpoint").into());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.starts_with(br#"{"checkpoint":"#) {
            let last: LastLine = serde_json::from_slice(&line)
                .map_err(|e| Failure::above(&name, format!("the checkpoint line is not readable: {e}")))?;
            return finish(&name, &tree, &last.checkpoint, keys);
        }
        let record = Record::parse(&line).map_err(|why| Failure::at(&name, index, None, why))?;
        let event = Some(record.event_id.to_string());
        if log.as_deref().is_some_and(|log| log != record.log) {
            return Err(
                Failure::at(&name, index, event, format!("it belongs to log `{}`", record.log)).into()
            );
        }
        sequences
            .push(&record.producer.service, &record.producer.epoch, record.producer.seq)
            .map_err(|why| Failure::at(&name, index, event, why))?;
        if log.is_none() {
            log = Some(record.log.to_string());
        }
        tree.push(leaf_hash(&line));
    }
}

fn finish(log: &str, tree: &Tree, note: &str, keys: &[VerifierKey]) -> Result<ExportReport, VerifyError> {
    let checkpoint = Checkpoint::verified(note, keys).map_err(|e| Failure::above(log, e.to_string()))?;
    let records = tree.size();
    if records != checkpoint.size {
        let why = format!("the export has {records} records, the checkpoint {}", checkpoint.size);
        return Err(Failure::at(log, records.min(checkpoint.size), None, why).into());
    }
    if records > 0 && checkpoint.origin.rsplit('/').next() != Some(log) {
        return Err(Failure::above(log, format!("the checkpoint is that of `{}`", checkpoint.origin)).into());
    }
    if tree.root() != checkpoint.root {
        let why = "the records do not hash to the signed root; one or more of them were changed";
        return Err(Failure::above(log, why).into());
    }
    Ok(ExportReport { origin: checkpoint.origin, records, root: checkpoint.root })
}
