//! Which logs a verifier key is asked about. A key that is named like one log says nothing of the others, and any other
//! key is that of an installation, which signs all of its logs: none of them may do without.

use super::source::Head;
use crate::error::Failure;
use crate::note::{Checkpoint, NoteError, VerifierKey};

/// The keys of which one must have signed a log's checkpoint; none where only the database's own key can be asked.
pub(super) struct LogKeys(Vec<VerifierKey>);

impl LogKeys {
    pub(super) fn of(head: &Head, keys: &[VerifierKey], heads: &[Head]) -> Self {
        let own = |key: &&VerifierKey| named_log(key, heads).is_none_or(|log| log == head.log);
        Self(keys.iter().filter(own).cloned().collect())
    }

    /// The checkpoint of a note, if one of the keys signed it; nothing when there is no key of the log.
    pub(super) fn trusted(&self, note: &str) -> Option<Result<Checkpoint, NoteError>> {
        (!self.0.is_empty()).then(|| Checkpoint::verified(note, &self.0))
    }
}

/// Refuses a database that lacks a log of which a key was supplied.
pub(super) fn refuse_keys_of_no_log(keys: &[VerifierKey], heads: &[Head]) -> Result<(), Failure> {
    for key in keys {
        match named_log(key, heads) {
            Some(log) if !heads.iter().any(|head| head.log == log) => {
                let why = format!("the log is missing, but the key `{}` is of it", key.name());
                return Err(Failure::above(log, why));
            }
            None if heads.is_empty() => {
                let why = format!("there is no log that the key `{}` could have signed", key.name());
                return Err(Failure::above("(all)", why));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The log that a key is named like. Names of logs are those of their installation, with the log behind them: of which
/// installation a key is, is told by the names of all logs, so that no log escapes its key by another name.
fn named_log<'a>(key: &'a VerifierKey, heads: &[Head]) -> Option<&'a str> {
    heads.iter().find_map(|Head { log, origin, .. }| {
        let installation = origin.strip_suffix(log.as_str())?.strip_suffix('/')?;
        key.name().strip_prefix(installation)?.strip_prefix('/')
    })
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn key(name: &str) -> VerifierKey {
        let public = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
        let id = Sha256::digest([name.as_bytes(), b"\n\x01", &public].concat());
        let text =
            format!("{name}+{}+{}", hex::encode(&id[..4]), STANDARD.encode([&[1], &public[..]].concat()));
        VerifierKey::parse(&text).unwrap()
    }

    fn heads(origins: &[&str]) -> Vec<Head> {
        let head = |origin: &&str| Head {
            log: origin.rsplit('/').next().unwrap().to_owned(),
            origin: (*origin).to_owned(),
            tree_size: 0,
            root: Vec::new(),
        };
        origins.iter().map(head).collect()
    }

    /// The names of the keys that each log is asked for, or what is said instead.
    fn asked(keys: &[&str], origins: &[&str]) -> Result<Vec<Vec<String>>, String> {
        let (keys, heads): (Vec<_>, _) = (keys.iter().map(|name| key(name)).collect(), heads(origins));
        refuse_keys_of_no_log(&keys, &heads).map_err(|failure| failure.to_string())?;
        let of = |head| LogKeys::of(head, &keys, &heads).0.iter().map(|key| key.name().to_owned()).collect();
        Ok(heads.iter().map(of).collect())
    }

    #[test]
    fn a_key_is_asked_about_the_logs_whose_name_it_claims() {
        let (acme, umbrella, all) = ("p.dev/audit/acme", "p.dev/audit/umbrella", "p.dev/audit");
        let logs = [acme, umbrella];
        let names = |keys: &[&[&str]]| {
            Ok(keys.iter().map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()).collect())
        };
        assert_eq!(asked(&[], &logs), names(&[&[], &[]]));
        assert_eq!(asked(&[acme], &logs), names(&[&[acme], &[]]));
        assert_eq!(asked(&[acme, umbrella], &logs), names(&[&[acme], &[umbrella]]));
        assert_eq!(asked(&[all, acme], &logs), names(&[&[all, acme], &[all]]));
        assert_eq!(asked(&["elsewhere"], &logs), names(&[&["elsewhere"], &["elsewhere"]]));
        // A log that took another name is still asked for the keys that were of it.
        assert_eq!(asked(&[acme], &["evil/acme", umbrella]), names(&[&[acme], &[]]));
        assert_eq!(asked(&[all], &["evil/acme", umbrella]), names(&[&[all], &[all]]));
        assert_eq!(asked(&[acme], &["evil/acme", "evil/umbrella"]), names(&[&[acme], &[acme]]));
    }

    #[test]
    fn a_key_of_a_log_that_is_missing_is_an_alarm_about_that_log() {
        let why = "log `gone`: the log is missing, but the key `p.dev/audit/gone` is of it";
        assert_eq!(asked(&["p.dev/audit/gone"], &["p.dev/audit/acme"]), Err(why.to_owned()));
        let why = "log `(all)`: there is no log that the key `p.dev/audit` could have signed";
        assert_eq!(asked(&["p.dev/audit"], &[]), Err(why.to_owned()));
    }
}
