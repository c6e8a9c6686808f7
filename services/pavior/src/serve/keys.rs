//! The keys of a process: who it is to the other services, and what it seals with.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use pavior_auth::{InternalSigner, InternalVerifier, PublicKey, ServiceIdentity, SigningKey};
use pavior_core::clock::Clock;
use pavior_core::id::IdGen;

use super::{Config, Role};

/// Makes the keys of a system whose services run apart: `private/{role}/{role}.pem`, so that each service is given its
/// own folder and no other, `public/{role}.pub.pem` for all, and the keys that replicas share. What is there already
/// is kept.
pub fn generate(directory: &Path) -> anyhow::Result<()> {
    for role in Role::ALL {
        own_key(role, &directory.join("private").join(role.name()), &directory.join("public"), true)?;
    }
    secret_file(&directory.join("sealing"), true)?;
    secret_file(&directory.join("page-token"), true)?;
    Ok(())
}

fn private_directory(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make `{}`", path.display()))
}

fn own_key(role: Role, private: &Path, public: &Path, make: bool) -> anyhow::Result<SigningKey> {
    let path = private.join(format!("{}.pem", role.name()));
    if !path.exists() && !make {
        bail!("`{}` is missing; make the keys of all services with `pavior keys`", path.display());
    }
    private_directory(private)?;
    let key = SigningKey::load_or_create(&path)?;
    let public_path = public.join(format!("{}.pub.pem", role.name()));
    if make && !public_path.exists() {
        fs::create_dir_all(public).with_context(|| format!("cannot make `{}`", public.display()))?;
        fs::write(&public_path, key.public().to_pem())
            .with_context(|| format!("cannot write `{}`", public_path.display()))?;
    }
    Ok(key)
}

/// The keys by which services of one system believe each other.
#[derive(Debug)]
pub(super) struct Trust {
    verifier: InternalVerifier,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
    private: std::path::PathBuf,
    public: std::path::PathBuf,
    make: bool,
}

impl Trust {
    /// Reads the public keys of every role; makes all keys first when the whole system runs in this process.
    pub(super) fn load(
        config: &Config,
        roles: &[Role],
        clock: &Arc<dyn Clock>,
        ids: &Arc<dyn IdGen>,
    ) -> anyhow::Result<Self> {
        let private = config.internal.private_key_dir.clone().context("no folder for private keys")?;
        let public = config.internal.public_key_dir.clone().context("no folder for public keys")?;
        let make = roles.len() == Role::ALL.len();
        if make {
            for role in Role::ALL {
                own_key(role, &private, &public, true)?;
            }
        }
        let mut known = Vec::new();
        for role in Role::ALL {
            let path = public.join(format!("{}.pub.pem", role.name()));
            let pem = fs::read_to_string(&path).with_context(|| {
                format!("cannot read `{}`; make the keys of all services with `pavior keys`", path.display())
            })?;
            known.push((role.name().to_owned(), PublicKey::from_pem(&pem)?));
        }
        let verifier = InternalVerifier::new(known, clock.clone())?;
        Ok(Self { verifier, clock: clock.clone(), ids: ids.clone(), private, public, make })
    }

    /// What this process is to others in a role.
    pub(super) fn identity(&self, role: Role) -> anyhow::Result<ServiceIdentity> {
        let signer = InternalSigner::from_key(own_key(role, &self.private, &self.public, self.make)?);
        Ok(ServiceIdentity::new(role.name(), signer, self.clock.clone(), self.ids.clone()))
    }

    /// Checks the tokens of others.
    pub(super) fn verifier(&self) -> InternalVerifier {
        self.verifier.clone()
    }
}

/// Reads 32 bytes in hexadecimal; makes the file, readable by its owner only, where `make` allows it.
pub(super) fn secret_file(path: &Path, make: bool) -> anyhow::Result<[u8; 32]> {
    if !path.exists() {
        if !make {
            bail!("`{}` is missing; make it with `pavior keys` and give it to every replica", path.display());
        }
        if let Some(parent) = path.parent() {
            private_directory(parent)?;
        }
        let mut bytes = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot make `{}`", path.display()))?;
        file.write_all(hex::encode(bytes).as_bytes())?;
        file.sync_all()?;
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let mut bytes = [0_u8; 32];
    hex::decode_to_slice(text.trim(), &mut bytes)
        .map_err(|_| anyhow::anyhow!("`{}` does not hold 32 bytes in hexadecimal", path.display()))?;
    Ok(bytes)
}
