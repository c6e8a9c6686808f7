//! The key that signs checkpoints.

use std::path::Path;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use pavior_auth::SigningKey;
use secrecy::ExposeSecret as _;

use crate::config::Config;
use crate::domain::checkpoint::{CheckpointSigner, ConsistentLog, Objection, SignedNote};
use crate::domain::log_state::{LogState, TreeHead};
use crate::domain::note;
use crate::error::Error;

/// Signs as the logs of one installation.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    /// What stands before `/{organization}` in the names of logs.
    prefix: String,
    key: SigningKey,
    public: [u8; 32],
    /// Public keys of former signing keys.
    former: Vec<[u8; 32]>,
}

impl Signer {
    /// Reads the key from the configuration or its file, which is made when it does not exist.
    pub(crate) fn load(config: &Config) -> Result<Self, Error> {
        let key = match (&config.signing_key_pem, &config.signing_key_file) {
            (Some(pem), _) => SigningKey::from_pem(pem.expose_secret()),
            (None, Some(path)) => {
                make_folder(path)?;
                SigningKey::load_or_create(path)
            }
            (None, None) => return Err(Error::Config("no signing key is configured".to_owned())),
        }
        .map_err(|e| Error::Key(e.to_string()))?;
        let former = config
            .former_keys
            .iter()
            .map(|key| {
                note::public_key(&config.origin, key).ok_or_else(|| {
                    Error::Config(format!("`{key}` in `former_keys` is not a key of `origin`"))
                })
            })
            .collect::<Result<_, _>>()?;
        let public = *key.public().bytes();
        Ok(Self { prefix: config.origin.clone(), key, public, former })
    }

    /// The verifier key of the installation, which covers all its logs.
    pub(crate) fn verifier_key(&self) -> String {
        note::verifier_key(&self.prefix, &self.public)
    }

    /// Writes the verifier key beside the key's file (`….pub`), where an operator finds it without asking the service.
    pub(crate) fn publish(&self, config: &Config) -> Result<(), Error> {
        let Some(file) = &config.signing_key_file else { return Ok(()) };
        let path = file.with_extension("pub");
        let text = format!("{}\n", self.verifier_key());
        if std::fs::read_to_string(&path).is_ok_and(|found| found == text) {
            return Ok(());
        }
        std::fs::write(&path, text).map_err(|e| Error::Key(format!("cannot write `{}`: {e}", path.display())))
    }

    /// The signed note of a state that is kept outside of the database.
    pub(super) fn sign_state(&self, log: &str, state: &LogState) -> String {
        let origin = self.origin(log);
        self.signed(&note::state_text(&origin, state), &origin)
    }

    /// The state that such a note says, if a key of this installation signed it.
    pub(super) fn signed_state(&self, log: &str, signed: &str) -> Option<LogState> {
        let origin = self.origin(log);
        let state = note::state(signed, &origin)?;
        says(self.keys(), &origin, &note::state_text(&origin, &state), signed).then_some(state)
    }

    fn signed(&self, text: &str, origin: &str) -> String {
        note::signed_note(text, origin, &self.public, self.key.sign(text.as_bytes()).as_ref())
    }

    /// Its public key, and those of before.
    fn keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        std::iter::once(&self.public).chain(&self.former)
    }

    /// A key for page tokens, the same in every replica that shares the signing key.
    pub(crate) fn page_token_key(&self) -> [u8; 32] {
        // The signature is deterministic and never published, so its hash is as secret as the key.
        let signature = self.key.sign(b"pavior audit page tokens v1");
        pavior_core::digest::sha256(signature.as_ref())
    }
}

impl CheckpointSigner for Signer {
    fn origin(&self, log: &str) -> String {
        format!("{}/{log}", self.prefix)
    }

    fn sign(&self, log: &str, head: &TreeHead, time: i64) -> SignedNote {
        let origin = self.origin(log);
        SignedNote {
            note: self.signed(&note::checkpoint_text(&origin, head), &origin),
            verifier_key: note::verifier_key(&origin, &self.public),
            sign_time: time,
        }
    }

    fn has_signed(&self, log: &str, head: &TreeHead, note: &str) -> bool {
        let origin = self.origin(log);
        says(self.keys(), &origin, &note::checkpoint_text(&origin, head), note)
    }

    fn objection(&self, found: &ConsistentLog) -> Option<Objection> {
        let ConsistentLog { log, origin, edge, note, verifier_key } = found;
        let (own, head) = (self.origin(log), edge.head());
        if *origin != own {
            let why = format!("its name is `{origin}`, the configuration says `{own}`");
            return Some(Objection { why, foreign: true });
        }
        let is_own = self.keys().any(|key| note::verifier_key(&own, key) == *verifier_key);
        if is_own && self.has_signed(log, &head, note) {
            return None;
        }
        let other = note::public_key(&own, verifier_key);
        let foreign = other.is_some_and(|key| {
            says(&[key], &own, &note::checkpoint_text(&own, &head), note)
                && self.keys().all(|own| *own != key)
        });
        let why =
            "its last checkpoint is not signed by the configured key or one of `former_keys`".to_owned();
        Some(Objection { why, foreign })
    }
}

/// Whether one of the keys signed the note, which says exactly this.
fn says<'a>(
    keys: impl IntoIterator<Item = &'a [u8; 32]>,
    origin: &str,
    expected: &str,
    signed: &str,
) -> bool {
    let Some((text, signature)) = note::split(signed, origin) else { return false };
    text == expected
        && keys
            .into_iter()
            .any(|key| UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), &signature).is_ok())
}

fn make_folder(path: &Path) -> Result<(), Error> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => std::fs::create_dir_all(folder)
            .map_err(|e| Error::Key(format!("cannot make folder `{}`: {e}", folder.display()))),
        None => Ok(()),
    }
}
