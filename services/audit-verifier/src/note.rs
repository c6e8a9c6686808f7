//! C2SP signed notes, checkpoints and verifier keys, read by the letter:
//! <https://c2sp.org/signed-note>, <https://c2sp.org/tlog-checkpoint>.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::merkle::Hash;

/// The algorithm byte of Ed25519 in C2SP verifier keys.
const ED25519: u8 = 1;

/// Why a note, checkpoint or key is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The text is not a verifier key.
    #[error("not a verifier key (`name+id+base64`): {0}")]
    BadKey(&'static str),
    /// The text is not a signed note.
    #[error("not a signed note: {0}")]
    BadNote(&'static str),
    /// The note's text is not a checkpoint.
    #[error("not a checkpoint: {0}")]
    BadCheckpoint(&'static str),
    /// No signature of the key stands under the note.
    #[error("the note has no signature by key `{0}`")]
    NoSignature(String),
    /// A signature that claims to be by the key is not.
    #[error("the signature by key `{0}` is forged")]
    Forged(String),
}

/// A public key whose signatures are trusted, `name+id+base64(0x01 ‖ key)`.
///
/// The name is either the origin of one log (`pavior.dev/audit/acme`) or what stands before the log in the origins of
/// an installation (`pavior.dev/audit`), whose one key signs all its logs.
#[derive(Debug, Clone)]
pub struct VerifierKey {
    name: String,
    key: VerifyingKey,
}

impl VerifierKey {
    /// Reads the C2SP form and checks that the key id is that of name and key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (name, id, key) = match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(id), Some(key)) => (name, id, key),
            _ => return Err(NoteError::BadKey("three parts are joined by `+`")),
        };
        if !name_is_valid(name) {
            return Err(NoteError::BadKey("the name is empty or has a space or `+` in it"));
        }
        let bytes = STANDARD.decode(key).map_err(|_| NoteError::BadKey("the key is not base64"))?;
        let Some((&ED25519, public)) = bytes.split_first() else {
            return Err(NoteError::BadKey("the algorithm is not Ed25519"));
        };
        let public: [u8; 32] =
            public.try_into().map_err(|_| NoteError::BadKey("an Ed25519 key has 32 bytes"))?;
        if id != hex::encode(key_id(name, &public)) {
            return Err(NoteError::BadKey("the id is not that of name and key"));
        }
        let key =
            VerifyingKey::from_bytes(&public).map_err(|_| NoteError::BadKey("not a point of the curve"))?;
        Ok(Self { name: name.to_owned(), key })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the key may sign for the origin: its own name, or one below it.
    pub fn covers(&self, origin: &str) -> bool {
        origin == self.name
            || origin.strip_prefix(self.name.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }
}

fn name_is_valid(name: &str) -> bool {
    !name.is_empty() && !name.contains('+') && !name.chars().any(char::is_whitespace)
}

fn key_id(name: &str, public: &[u8; 32]) -> [u8; 4] {
    let mut hasher = Sha256::new();
    hasher.update(name.as_bytes());
    hasher.update([b'\n', ED25519]);
    hasher.update(public);
    let hash: Hash = hasher.finalize().into();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// A signed note, taken apart but not yet believed.
#[derive(Debug, Clone)]
pub struct Note {
    text: String,
    signatures: Vec<(String, Vec<u8>)>,
}

impl Note {
    /// Takes a note apart into text and signature lines.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.chars().any(|c| c.is_control() && c != '\n') {
            return Err(NoteError::BadNote("it has control characters"));
        }
        let end = note.rfind("\n\n").ok_or(NoteError::BadNote("no blank line before signatures"))?;
        let (text, lines) = (&note[..=end], &note[end + 2..]);
        let body = lines.strip_suffix('\n').ok_or(NoteError::BadNote("the last line is not ended"))?;
        let signatures = body.split('\n').map(signature_line).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// Checks that the key signed the note under the origin's name.
    pub fn verify(&self, key: &VerifierKey, origin: &str) -> Result<(), NoteError> {
        if !key.covers(origin) {
            return Err(NoteError::NoSignature(key.name.clone()));
        }
        let id = key_id(origin, key.key.as_bytes());
        let mut found = false;
        for (name, blob) in &self.signatures {
            if name != origin || blob[..4] != id {
                continue;
            }
            found = true;
            let bytes: [u8; 64] = blob[4..].try_into().map_err(|_| NoteError::Forged(key.name.clone()))?;
            key.key
                .verify_strict(self.text.as_bytes(), &Signature::from_bytes(&bytes))
                .map_err(|_| NoteError::Forged(key.name.clone()))?;
        }
        if found { Ok(()) } else { Err(NoteError::NoSignature(key.name.clone())) }
    }
}

fn signature_line(line: &str) -> Result<(String, Vec<u8>), NoteError> {
    let rest =
        line.strip_prefix("\u{2014} ").ok_or(NoteError::BadNote("a signature line begins with `— `"))?;
    let (name, blob) = rest.split_once(' ').ok_or(NoteError::BadNote("a signature line has two fields"))?;
    let blob = STANDARD.decode(blob).map_err(|_| NoteError::BadNote("a signature is not base64"))?;
    if !name_is_valid(name) || blob.len() < 5 {
        return Err(NoteError::BadNote("a signature line has no valid name or no signature"));
    }
    Ok((name.to_owned(), blob))
}

/// What a log says about itself: its name, how many records it has and the hash over all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the log.
    pub origin: String,
    /// How many records.
    pub size: u64,
    /// The tree hash.
    pub root: Hash,
}

impl Checkpoint {
    /// Reads the checkpoint of a note. It is not to be believed before [`Note::verify`].
    pub fn of(note: &Note) -> Result<Self, NoteError> {
        let mut lines = note.text.split('\n');
        let origin = lines.next().filter(|o| !o.is_empty()).ok_or(NoteError::BadCheckpoint("no origin"))?;
        let size = lines.next().unwrap_or_default();
        if size.len() > 1 && size.starts_with('0') || !size.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NoteError::BadCheckpoint("the size is not a decimal without leading zeros"));
        }
        let size = size.parse().map_err(|_| NoteError::BadCheckpoint("the size is not a number"))?;
        let root = STANDARD
            .decode(lines.next().unwrap_or_default())
            .ok()
            .and_then(|bytes| Hash::try_from(bytes).ok())
            .ok_or(NoteError::BadCheckpoint("the root is not the base64 of 32 bytes"))?;
        Ok(Self { origin: origin.to_owned(), size, root })
    }

    /// Reads and checks a note against one of the keys; returns the checkpoint only when one of them signed it.
    pub fn verified(note: &str, keys: &[VerifierKey]) -> Result<Self, NoteError> {
        let note = Note::parse(note)?;
        let checkpoint = Self::of(&note)?;
        let mut why = NoteError::NoSignature("(none given)".to_owned());
        for key in keys {
            match note.verify(key, &checkpoint.origin) {
                Ok(()) => return Ok(checkpoint),
                Err(forged @ NoteError::Forged(_)) => return Err(forged),
                Err(other) => why = other,
            }
        }
        Err(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // From the Go module golang.org/x/mod/sumdb/note, which defined the format.
    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn published_note_verifies_and_a_changed_one_does_not() {
        let key = VerifierKey::parse(KEY).unwrap();
        Note::parse(NOTE).unwrap().verify(&key, "PeterNeumann").unwrap();
        let forged = Note::parse(&NOTE.replace("answer", "answes")).unwrap();
        assert_eq!(forged.verify(&key, "PeterNeumann"), Err(NoteError::Forged("PeterNeumann".into())));
    }

    #[test]
    fn malformed_keys_are_refused() {
        for bad in [
            "",
            "a+b",
            "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a3+AQ==",
        ] {
            assert!(VerifierKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn malformed_notes_are_refused() {
        for bad in
            ["", "a\n\n", "a\n\n— x\n", "a\n— n AAAAAAAA\n", "a\n\n- n AAAAAAAA\n", "a\r\n\n— n AAAAAAAA\n"]
        {
            assert!(Note::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn key_of_an_installation_covers_only_its_logs() {
        let key = VerifierKey::parse(KEY).unwrap();
        assert!(key.covers("PeterNeumann") && key.covers("PeterNeumann/acme"));
        assert!(!key.covers("PeterNeumanns") && !key.covers("other"));
    }
}
