//! Secrets at rest: AES-256-GCM, a fresh nonce for each, bound to the resource and the field that they belong to.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use pavior_core::digest::canonical_json;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// The key that secrets are sealed with. Never printed.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

impl SealingKey {
    /// From 32 bytes.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Zeroizing::new(key))
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey")
    }
}

impl SealingKey {
    fn key(&self) -> Result<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, self.0.as_slice())
            .map_err(|_| Error::Seal("sealed: the key is bad"))
    }

    /// A digest of the inputs that are declared for a resource, which tells nothing of them without the key.
    pub(crate) fn declaration(&self, resource: &str, inputs: &Value) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_slice());
        let mut context = hmac::Context::with_key(&key);
        for part in [b"declaration".as_slice(), resource.as_bytes(), &canonical_json(inputs)] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        hex::encode(context.sign())
    }

    /// Seals a value for `place` (resource and field).
    pub fn seal(&self, place: &str, value: &SecretString) -> Result<Vec<u8>> {
        let mut buffer = value.expose_secret().as_bytes().to_vec();
        let nonce = self
            .key()?
            .seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut buffer)
            .map_err(|_| Error::Seal("sealed"))?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.extend_from_slice(&buffer);
        Ok(sealed)
    }

    /// Opens what was sealed for the same place.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<SecretString> {
        let failed = || Error::Seal("opened");
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut buffer = Zeroizing::new(rest.to_vec());
        let plain = self
            .key()?
            .open_in_place(nonce, Aad::from(place.as_bytes()), &mut buffer)
            .map_err(|_| failed())?;
        let text = std::str::from_utf8(plain).map_err(|_| failed())?;
        Ok(SecretString::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_values_open_only_in_their_place() {
        let key = SealingKey::new([7; 32]);
        let sealed = key.seal("a/password", &SecretString::from("hunter2")).unwrap();
        assert_eq!(key.open("a/password", &sealed).unwrap().expose_secret(), "hunter2");
        let other = SealingKey::new([8; 32]);
        for (key, place, sealed) in [
            (&key, "b/password", &sealed[..]),
            (&other, "a/password", &sealed[..]),
            (&key, "a/password", &sealed[..5]),
        ] {
            let error = key.open(place, sealed).unwrap_err();
            assert!(matches!(error, Error::Seal("opened")), "{error:?}");
        }
        assert_ne!(key.seal("a/password", &SecretString::from("hunter2")).unwrap(), sealed);
    }
}
