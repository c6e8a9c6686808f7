//! The key that signs checkpoints.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pavior_auth::SigningKey;
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::domain::hash::Hash;
use crate::domain::known::Kept;
use crate::domain::note;
use crate::domain::record::Signed;
use crate::error::Error;
use crate::store::{Objection, Sign, Unchecked};

/// Signs as the logs of one installation. Never printed.
#[derive(Clone)]
pub(crate) struct Signer {
    /// What stands before `/{organization}` in the names of logs.
    prefix: String,
    pair: Arc<Ed25519KeyPair>,
    public: [u8; 32],
    /// Public keys of former signing keys.
    former: Vec<[u8; 32]>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("verifier_key", &self.verifier_key()).finish_non_exhaustive()
    }
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
        let pem = key.to_pem().map_err(|e| Error::Key(e.to_string()))?;
        let pair = parse(&pem).ok_or_else(|| Error::Key("not an Ed25519 key in PKCS #8".to_owned()))?;
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        let former = config
            .former_keys
            .iter()
            .map(|key| {
                note::public_key(&config.origin, key).ok_or_else(|| {
                    Error::Config(format!("`{key}` in `former_keys` is not a key of `origin`"))
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { prefix: config.origin.clone(), pair: Arc::new(pair), public, former })
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

    /// The signed note of a checkpoint that is kept outside of the database.
    pub(super) fn sign_kept(&self, log: &str, kept: &Kept) -> String {
        let origin = self.origin(log);
        self.signed(&note::kept_text(&origin, kept), &origin)
    }

    /// What such a note says, if a key of this installation signed it.
    pub(super) fn kept(&self, log: &str, signed: &str) -> Option<Kept> {
        let origin = self.origin(log);
        let kept = note::kept(signed, &origin)?;
        says(self.known(), &origin, &note::kept_text(&origin, &kept), signed).then_some(kept)
    }

    fn signed(&self, text: &str, origin: &str) -> String {
        note::signed_note(text, origin, &self.public, self.pair.sign(text.as_bytes()).as_ref())
    }

    /// Whether the note is a checkpoint of exactly this state, signed by this key or a former one.
    fn accepts(&self, log: &str, size: u64, root: &Hash, signed: &str, verifier_key: &str) -> bool {
        let origin = self.origin(log);
        let known = self.known().any(|key| note::verifier_key(&origin, key) == verifier_key);
        known && self.has_signed(log, size, root, signed)
    }

    fn knows(&self, key: &[u8; 32]) -> bool {
        self.known().any(|known| known == key)
    }

    fn known(&self) -> impl Iterator<Item = &[u8; 32]> {
        std::iter::once(&self.public).chain(&self.former)
    }

    /// A key for page tokens, the same in every replica that shares the signing key.
    pub(crate) fn page_token_key(&self) -> [u8; 32] {
        // The signature is deterministic and never published, so its hash is as secret as the key.
        let signature = self.pair.sign(b"pavior audit page tokens v1");
        pavior_core::digest::sha256(signature.as_ref())
    }
}

impl Sign for Signer {
    fn origin(&self, log: &str) -> String {
        format!("{}/{log}", self.prefix)
    }

    fn sign(&self, log: &str, size: u64, root: &Hash, time: i64) -> Signed {
        let origin = self.origin(log);
        Signed {
            note: self.signed(&note::checkpoint_text(&origin, size, root), &origin),
            verifier_key: note::verifier_key(&origin, &self.public),
            sign_time: time,
        }
    }

    fn has_signed(&self, log: &str, size: u64, root: &Hash, note: &str) -> bool {
        let origin = self.origin(log);
        says(self.known(), &origin, &note::checkpoint_text(&origin, size, root), note)
    }

    fn objection(&self, found: &Unchecked) -> Option<Objection> {
        let Unchecked { log, origin, edge, note, verifier_key } = found;
        let (own, root) = (self.origin(log), edge.root());
        if *origin != own {
            let why = format!("its name is `{origin}`, the configuration says `{own}`");
            return Some(Objection { why, foreign: true });
        }
        if self.accepts(log, edge.size(), &root, note, verifier_key) {
            return None;
        }
        let other = note::public_key(&own, verifier_key);
        let foreign = other.is_some_and(|key| {
            says(&[key], &own, &note::checkpoint_text(&own, edge.size(), &root), note) && !self.knows(&key)
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

fn parse(pem: &str) -> Option<Ed25519KeyPair> {
    let body: Zeroizing<String> =
        Zeroizing::new(pem.lines().filter(|line| !line.starts_with("-----")).collect());
    let der = Zeroizing::new(STANDARD.decode(body.as_bytes()).ok()?);
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok()
}
