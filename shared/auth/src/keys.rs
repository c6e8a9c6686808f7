//! Ed25519 keys: made, read from and written to PEM (PKCS #8 private, SubjectPublicKeyInfo public).

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::error::AuthError;

/// The fixed DER head of an Ed25519 SubjectPublicKeyInfo (RFC 8410); 32 bytes of key follow.
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A private Ed25519 key. Cheap to clone; never printed.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<Ed25519KeyPair>,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.public().kid()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Makes a new key.
    pub fn generate() -> Result<Self, AuthError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| bad("new", "no randomness"))?;
        Ok(Self { pair: Arc::new(pair) })
    }

    /// Reads a PKCS #8 key in PEM, as `openssl genpkey -algorithm ed25519` writes it.
    pub fn from_pem(pem: &str) -> Result<Self, AuthError> {
        let der = Zeroizing::new(from_pem(pem, "PRIVATE KEY")?);
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map_err(|_| bad("PRIVATE KEY", "not an Ed25519 key in PKCS #8"))?;
        Ok(Self { pair: Arc::new(pair) })
    }

    /// Writes the key as PKCS #8 in PEM.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, AuthError> {
        let document = self.pair.to_pkcs8v1().map_err(|_| bad("PRIVATE KEY", "cannot be written"))?;
        Ok(Zeroizing::new(to_pem(document.as_ref(), "PRIVATE KEY")))
    }

    /// Reads the key from a file, or makes one and writes it there, readable by its owner only.
    pub fn load_or_create(path: &Path) -> Result<Self, AuthError> {
        let file_error = |source| AuthError::File { path: path.display().to_string(), source };
        match std::fs::read_to_string(path) {
            Ok(pem) => return Self::from_pem(&Zeroizing::new(pem)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(file_error(error)),
        }
        let key = Self::generate()?;
        let pem = key.to_pem()?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(path).and_then(|mut file| {
            file.write_all(pem.as_bytes())?;
            file.sync_all()
        }) {
            Ok(()) => Ok(key),
            // Another process was first: its key is the key.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Self::from_pem(&Zeroizing::new(std::fs::read_to_string(path).map_err(file_error)?))
            }
            Err(error) => Err(file_error(error)),
        }
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey { bytes }
    }

    /// Signs; the same message always in the same way.
    pub fn sign(&self, message: &[u8]) -> aws_lc_rs::signature::Signature {
        self.pair.sign(message)
    }
}

/// A public Ed25519 key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey {
    bytes: [u8; 32],
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PublicKey").field(&self.kid()).finish()
    }
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in PEM, as `openssl pkey -pubout` writes it.
    pub fn from_pem(pem: &str) -> Result<Self, AuthError> {
        let der = from_pem(pem, "PUBLIC KEY")?;
        let key = der.strip_prefix(&SPKI_HEAD).and_then(|key| <[u8; 32]>::try_from(key).ok());
        key.map(|bytes| Self { bytes }).ok_or_else(|| bad("PUBLIC KEY", "not an Ed25519 key"))
    }

    /// Writes the key as SubjectPublicKeyInfo in PEM.
    pub fn to_pem(&self) -> String {
        to_pem(&[SPKI_HEAD.as_slice(), &self.bytes].concat(), "PUBLIC KEY")
    }

    /// The point of the curve.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// A name for the key: the first half of its SHA-256, base64url.
    pub fn kid(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.bytes);
        URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16])
    }

    /// The `x` member of the key as a JWK (RFC 8037).
    pub(crate) fn jwk_x(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.bytes)
    }

    pub(crate) fn parse(&self) -> Result<ParsedPublicKey, AuthError> {
        ParsedPublicKey::new(&ED25519, self.bytes).map_err(|_| bad(&self.kid(), "not a point of the curve"))
    }
}

fn bad(name: &str, reason: &str) -> AuthError {
    AuthError::Key { name: name.to_owned(), reason: reason.to_owned() }
}

fn to_pem(der: &[u8], label: &str) -> String {
    let body = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for start in (0..body.len()).step_by(64) {
        pem.push_str(&body[start..body.len().min(start + 64)]);
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

fn from_pem(pem: &str, label: &str) -> Result<Vec<u8>, AuthError> {
    let body = pem
        .split_once(&format!("-----BEGIN {label}-----"))
        .and_then(|(_, rest)| rest.split_once(&format!("-----END {label}-----")))
        .map(|(body, _)| body.split_whitespace().collect::<String>())
        .ok_or_else(|| bad(label, "not in PEM"))?;
    STANDARD.decode(body).map_err(|_| bad(label, "not base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let made = SigningKey::load_or_create(&path).unwrap();
        let read = SigningKey::load_or_create(&path).unwrap();
        assert_eq!(made.public(), read.public());
        assert_eq!(PublicKey::from_pem(&made.public().to_pem()).unwrap(), made.public());
        assert!(!format!("{made:?}").contains(made.to_pem().unwrap().lines().nth(1).unwrap()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn other_things_are_not_keys() {
        for text in ["", "-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n"] {
            assert!(SigningKey::from_pem(text).is_err());
            assert!(PublicKey::from_pem(text).is_err());
        }
    }
}
