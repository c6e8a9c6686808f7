//! The drivers' own key. Passwords are derived from it, so that they can be given again without being stored, and
//! what must be kept (the environment of a workload) is sealed with it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretBox, SecretString};

/// The key of all drivers of an installation. Never printed.
#[derive(Debug, Clone)]
pub struct DriversKey(std::sync::Arc<SecretBox<[u8; 32]>>);

impl DriversKey {
    /// Derived (HKDF, RFC 5869) from the key that seals secrets in the database, so that every replica has the same
    /// one, and whoever restores a database with its key has that of the drivers, too.
    #[must_use]
    pub fn derive(sealing_key: &[u8; 32]) -> Self {
        let bytes = expand(sealing_key, b"pavior drivers");
        Self(std::sync::Arc::new(SecretBox::new(Box::new(bytes))))
    }
}

/// The first 32 bytes of HKDF-SHA256 (RFC 5869), which is extraction and one block.
fn expand(secret: &[u8], info: &[u8]) -> [u8; 32] {
    let extracted = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"pavior"), secret);
    let mut block = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, extracted.as_ref()));
    block.update(info);
    block.update(&[1]);
    let mut bytes = [0_u8; 32];
    bytes.copy_from_slice(block.sign().as_ref());
    bytes
}

pub(crate) struct Keyring {
    mac: hmac::Key,
    seal: RandomizedNonceKey,
}

impl Keyring {
    pub(crate) fn new(key: &DriversKey) -> std::io::Result<Self> {
        let master = key.0.expose_secret();
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &expand(master, b"mac"));
        let seal = RandomizedNonceKey::new(&AES_256_GCM, &expand(master, b"seal"))
            .map_err(|_| std::io::Error::other("the drivers' key cannot be used"))?;
        Ok(Self { mac, seal })
    }

    /// Says whether a key is the same, and nothing about it.
    pub(crate) fn check(&self) -> String {
        self.digest("key check", b"")
    }

    fn sign(&self, purpose: &str, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.mac);
        for part in std::iter::once(&purpose.as_bytes()).chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign()
    }

    /// A key for this purpose alone.
    pub(crate) fn key(&self, purpose: &str) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.sign(purpose, &[]).as_ref());
        key
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
    fn keys_are_expanded_as_the_standard_says() {
        use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
        let mut want = [0_u8; 32];
        let extracted = Salt::new(HKDF_SHA256, b"pavior").extract(&[7; 32]);
        extracted.expand(&[b"mac"], HKDF_SHA256).unwrap().fill(&mut want).unwrap();
        assert_eq!(expand(&[7; 32], b"mac"), want);
    }

    #[test]
    fn passwords_come_again_and_seals_open() {
        let keyring = |byte| Keyring::new(&DriversKey::derive(&[byte; 32])).unwrap();
        let (first, second, other) = (keyring(1), keyring(1), keyring(2));
        let password = first.password("git", &["a", "b"]);
        assert_eq!(password.expose_secret(), second.password("git", &["a", "b"]).expose_secret());
        assert_ne!(password.expose_secret(), second.password("git", &["ab", ""]).expose_secret());
        assert_ne!(password.expose_secret(), other.password("git", &["a", "b"]).expose_secret());
        let sealed = first.seal("x", b"secret").unwrap();
        assert_eq!(second.open_sealed("x", &sealed).unwrap(), b"secret");
        for (keyring, name) in [(&second, "y"), (&other, "x")] {
            let error = keyring.open_sealed(name, &sealed).unwrap_err();
            assert!(error.to_string().contains("another key"), "{error}");
        }
        assert_eq!(first.check(), second.check());
        assert_ne!(first.check(), other.check());
        assert!(format!("{:?}", DriversKey::derive(&[7; 32])).contains("REDACTED"));
    }
}
