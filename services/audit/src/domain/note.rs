//! The text of checkpoints and verifier keys: C2SP signed-note and tlog-checkpoint.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::hash::Hash;
use super::log_state::{LogState, TreeHead};

/// The algorithm byte of Ed25519.
const ED25519: u8 = 1;

/// The text that is signed: origin, size and root, a line each.
pub(crate) fn checkpoint_text(origin: &str, TreeHead { size, root }: &TreeHead) -> String {
    format!("{origin}\n{size}\n{}\n", STANDARD.encode(root))
}

/// What begins the extension line of a state that is kept outside of the database.
const GENERATION: &str = "accepted-losses ";

/// The same of a state with its generation, which is an extension line unless it is the first one.
pub(crate) fn state_text(origin: &str, LogState { head, generation }: &LogState) -> String {
    let mut text = checkpoint_text(origin, head);
    if *generation > 0 {
        text.push_str(&format!("{GENERATION}{generation}\n"));
    }
    text
}

/// The first four bytes of SHA-256 over name, newline, algorithm and public key.
fn key_id(name: &str, public: &[u8; 32]) -> [u8; 4] {
    let mut bytes = name.as_bytes().to_vec();
    bytes.extend_from_slice(&[b'\n', ED25519]);
    bytes.extend_from_slice(public);
    let hash = digest(&SHA256, &bytes);
    let mut id = [0; 4];
    id.copy_from_slice(&hash.as_ref()[..4]);
    id
}

/// The note: the text, an empty line, and the signature under the name of the log.
pub(crate) fn signed_note(text: &str, name: &str, public: &[u8; 32], signature: &[u8]) -> String {
    let mut blob = key_id(name, public).to_vec();
    blob.extend_from_slice(signature);
    format!("{text}\n\u{2014} {name} {}\n", STANDARD.encode(blob))
}

/// The verifier key in C2SP form: name, key id, algorithm and key.
pub(crate) fn verifier_key(name: &str, public: &[u8; 32]) -> String {
    let mut blob = vec![ED25519];
    blob.extend_from_slice(public);
    format!("{name}+{}+{}", hex::encode(key_id(name, public)), STANDARD.encode(blob))
}

/// The public key of a verifier key, when it is one of that name.
pub(crate) fn public_key(name: &str, verifier: &str) -> Option<[u8; 32]> {
    // The last part is base64, which has a `+` now and then.
    let blob = STANDARD.decode(verifier.splitn(3, '+').nth(2)?).ok()?;
    let public: [u8; 32] = blob.get(1..)?.try_into().ok()?;
    (verifier_key(name, &public) == verifier).then_some(public)
}

/// The signed text of a note and the first signature under the name, without its key id.
pub(crate) fn split(note: &str, name: &str) -> Option<(String, Vec<u8>)> {
    let end = note.rfind("\n\n")?;
    let prefix = format!("\u{2014} {name} ");
    let line = note[end + 2..].lines().find_map(|line| line.strip_prefix(&prefix))?;
    let blob = STANDARD.decode(line).ok()?;
    Some((note[..=end].to_owned(), blob.get(4..)?.to_vec()))
}

/// The state that a note says, when it is one of that name. Whether it is signed is another question.
pub(crate) fn state(note: &str, origin: &str) -> Option<LogState> {
    let mut lines = note.lines();
    if lines.next()? != origin {
        return None;
    }
    let size = lines.next()?.parse().ok()?;
    let root: Hash = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
    let generation = match lines.next()?.strip_prefix(GENERATION) {
        Some(generation) => generation.parse().ok()?,
        None => 0,
    };
    Some(LogState { head: TreeHead { size, root }, generation })
}

/// Whether the text may name a log's origin and so a key: no space, `+` or control character.
pub(crate) fn origin_is_valid(origin: &str) -> bool {
    !origin.is_empty() && !origin.chars().any(|c| c == '+' || c.is_whitespace() || c.is_control())
}
