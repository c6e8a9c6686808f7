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
        if read == 0 && index == 0 {
            return Err(VerifyError::not_an_export("it is empty"));
        }
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
        if index == 0 && line.first() != Some(&b'{') {
            return Err(VerifyError::not_an_export("it does not begin with a record"));
        }
        let record = Record::parse(&line).map_err(|why| Failure::at(&name, index, None, why))?;
        let event = Some(record.event.event_id.to_string());
        if log.as_deref().is_some_and(|log| log != record.log) {
            return Err(
                Failure::at(&name, index, event, format!("it belongs to log `{}`", record.log)).into()
            );
        }
        sequences
            .push(&record.producer.service, &record.producer.epoch, record.producer.sequence)
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

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use ed25519_dalek::{Signer as _, SigningKey};
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn record(log: &str, seq: u64) -> String {
        format!(
            r#"{{"event":{{"action":"a","affected":[{{"name":"m","type":"t"}}],"auditClass":"REQUIRED","eventId":"e{seq}","eventTime":"2026-11-22T18:01:08.000001Z","outcome":{{"code":"OK","status":"SUCCEEDED"}},"phase":"OUTCOME","principal":{{"kind":"USER","name":"r"}},"target":{{"name":"n","type":"t"}}}},"log":"{log}","producer":{{"epoch":"1","sequence":{seq},"service":"s"}},"receiveTime":"2026-11-22T18:01:08.000001Z","salt":"00","version":1}}"#
        )
    }

    /// Signs as the writer does, but written here from the specification.
    fn signed(key: &SigningKey, origin: &str, lines: &[String]) -> (String, VerifierKey) {
        let mut tree = Tree::new();
        lines.iter().for_each(|line| tree.push(leaf_hash(line.as_bytes())));
        let text = format!("{origin}\n{}\n{}\n", lines.len(), STANDARD.encode(tree.root()));
        let public = key.verifying_key().to_bytes();
        let id = |name: &str| Sha256::digest([name.as_bytes(), b"\n\x01", &public].concat())[..4].to_vec();
        let blob = [id(origin), key.sign(text.as_bytes()).to_bytes().to_vec()].concat();
        let note = format!("{text}\n\u{2014} {origin} {}\n", STANDARD.encode(blob));
        let base = "pavior.dev/audit";
        let verifier =
            format!("{base}+{}+{}", hex::encode(id(base)), STANDARD.encode([&[1], &public[..]].concat()));
        (note, VerifierKey::parse(&verifier).unwrap())
    }

    fn export(lines: &[String], note: &str) -> Vec<u8> {
        let last = serde_json::json!({ "checkpoint": note }).to_string();
        [lines, &[last]].concat().join("\n").into_bytes()
    }

    #[test]
    fn export_verifies_with_the_key_of_the_installation_and_not_when_anything_is_different() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let lines: Vec<String> = (1..=5).map(|seq| record("acme", seq)).collect();
        let (note, verifier) = signed(&key, "pavior.dev/audit/acme", &lines);
        let keys = [verifier];
        let report = verify_export(&export(&lines, &note)[..], &keys).unwrap();
        assert_eq!((report.records, report.origin.as_str()), (5, "pavior.dev/audit/acme"));

        let check =
            |lines: &[String], note: &str| verify_export(&export(lines, note)[..], &keys).unwrap_err();
        assert_eq!(check(&lines[..4], &note).failure().unwrap().first_bad_index, Some(4));
        let mut swapped = lines.clone();
        swapped.swap(1, 3);
        assert_eq!(check(&swapped, &note).failure().unwrap().first_bad_index, Some(2));
        let mut foreign = lines.clone();
        foreign[2] = record("umbrella", 3);
        assert_eq!(check(&foreign, &note).failure().unwrap().first_bad_index, Some(2));
        let mut changed = lines.clone();
        changed[2] = changed[2].replace(r#""status":"SUCCEEDED""#, r#""status":"FAILED""#);
        assert!(check(&changed, &note).to_string().contains("signed root"));
        let (forged, _) = signed(&SigningKey::from_bytes(&[8; 32]), "pavior.dev/audit/acme", &changed);
        assert!(check(&changed, &forged).to_string().contains("no signature"));
        let (other, _) = signed(&key, "pavior.dev/audit/umbrella", &lines);
        assert!(check(&lines, &other).to_string().contains("is that of"));
        assert!(verify_export(&b""[..], &keys).is_err());
        assert!(verify_export(&lines.join("\n").into_bytes()[..], &keys).is_err());
        assert!(verify_export(&b"nonsense"[..], &keys).is_err());
    }

    #[test]
    fn no_flipped_byte_of_an_export_passes() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let lines: Vec<String> = (1..=3).map(|seq| record("acme", seq)).collect();
        let (note, verifier) = signed(&key, "pavior.dev/audit/acme", &lines);
        let bytes = export(&lines, &note);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(verify_export(&flipped[..], std::slice::from_ref(&verifier)).is_err(), "byte {at}");
        }
    }
}
