//! The drivers' own key. Passwords are derived from it, so that they can be given again without being stored, and
//! what must be kept (the environment of a workload) is sealed with it.

use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};

use crate::files;

pub(crate) struct Keyring {
    mac: hmac::Key,
    seal: RandomizedNonceKey,
}

impl Keyring {
    /// From the configured secret, or from a file in the data directory that is made on first use.
    pub(crate) fn open(data: &Path, configured: Option<&SecretString>) -> std::io::Result<Self> {
        let master = match configured {
            Some(secret) => secret.expose_secret().as_bytes().to_vec(),
            None => Self::from_file(&data.join("drivers").join("master.key"))?,
        };
        if master.len() < 32 {
            return Err(std::io::Error::other("the drivers' key is shorter than 32 bytes"));
        }
        let master = hmac::Key::new(hmac::HMAC_SHA256, &master);
        let mac = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&master, b"pavior drivers mac").as_ref());
        let seal =
            RandomizedNonceKey::new(&AES_256_GCM, hmac::sign(&master, b"pavior drivers seal").as_ref())
                .map_err(|_| std::io::Error::other("the drivers' key cannot be used"))?;
        Ok(Self { mac, seal })
    }

    fn from_file(path: &Path) -> std::io::Result<Vec<u8>> {
        if let Some(parent) = path.parent() {
            files::private_directory(parent)?;
        }
        let mut fresh = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut fresh).map_err(|_| std::io::Error::other("no randomness"))?;
        match files::create_private(path, &fresh) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => std::fs::read(path),
            Err(error) => Err(error),
            Ok(()) => Ok(fresh.to_vec()),
        }
    }

    fn sign(&self, purpose: &str, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.mac);
        for part in std::iter::once(&purpose.as_bytes()).chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign()
    }

    /// A keyed digest in hex: says whether two texts are the same, and nothing about them.
    pub(crate) fn digest(&self, purpose: &str, bytes: &[u8]) -> String {
        hex::encode(self.sign(purpose, &[bytes]).as_ref())
    }

    /// A password of 192 bits for these names, the same each time.
    pub(crate) fn password(&self, purpose: &str, names: &[&str]) -> SecretString {
        let parts: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        SecretString::from(URL_SAFE_NO_PAD.encode(&self.sign(purpose, &parts).as_ref()[..24]))
    }

    /// Encrypts for storage; `name` is bound to it.
    pub(crate) fn seal(&self, name: &str, plain: &[u8]) -> std::io::Result<String> {
        let mut bytes = plain.to_vec();
        let nonce = self
            .seal
            .seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut bytes)
            .map_err(|_| std::io::Error::other("cannot seal"))?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut bytes);
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    pub(crate) fn open_sealed(&self, name: &str, sealed: &str) -> std::io::Result<Vec<u8>> {
        let damaged = || std::io::Error::other("sealed data is damaged or was sealed with another key");
        let bytes = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| damaged())?;
        let (nonce, body) = bytes.split_at_checked(12).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut body = body.to_vec();
        let plain =
            self.seal.open_in_place(nonce, Aad::from(name.as_bytes()), &mut body).map_err(|_| damaged())?;
        Ok(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_come_again_and_seals_open() {
        let dir = tempfile::tempdir().unwrap();
        let first = Keyring::open(dir.path(), None).unwrap();
        let second = Keyring::open(dir.path(), None).unwrap();
        let password = first.password("git", &["a", "b"]);
        assert_eq!(password.expose_secret(), second.password("git", &["a", "b"]).expose_secret());
        assert_ne!(password.expose_secret(), second.password("git", &["ab", ""]).expose_secret());
        let sealed = first.seal("x", b"secret").unwrap();
        assert_eq!(second.open_sealed("x", &sealed).unwrap(), b"secret");
        assert!(second.open_sealed("y", &sealed).is_err());
    }
}
