//! The keys of a process: who it is to the other services, and what it seals with.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use pavior_auth::{InternalSigner, InternalVerifier, PublicKey, ServiceIdentity, SigningKey};
use pavior_core::clock::Clock;
use pavior_core::digest::key_check;
use pavior_core::id_gen::{IdGen, SystemIds};

use super::config::Config;
use super::installation::{self, KeyCheck, KeyChecks};
use super::role::Role;

/// Makes the keys of a system whose services run apart: `private/{role}/{role}.pem`, so that each service is given its
/// own folder and no other, `public/{role}.pub.pem` for all to read, and the keys that replicas share. What is there
/// already is kept.
pub fn generate(directory: &Path) -> anyhow::Result<()> {
    let new = !directory.exists();
    for role in Role::ALL {
        own_key(role, &directory.join("private").join(role.name()), &directory.join("public"), true)?;
    }
    secret_file(&directory.join("sealing"), true)?;
    secret_file(&directory.join("page-token"), true)?;
    let public = directory.join("public");
    installation::generate(&public, &SystemIds)?;
    pavior_files::publish(&public)
        // A way to `public`, and no look at what else there is.
        .and_then(
            |()| if new { fs::set_permissions(directory, Permissions::from_mode(0o711)) } else { Ok(()) },
        )
        .with_context(|| format!("cannot open `{}` to others", public.display()))
}

/// The keys of a process that are no service's own identity.
#[derive(Debug)]
pub(super) struct Secrets {
    /// Protects page tokens.
    pub(super) page_token: [u8; 32],
    /// Seals secret outputs; present where provisioning runs.
    pub(super) sealing: Option<[u8; 32]>,
    /// The check values that databases record for these keys.
    pub(super) checks: KeyChecks,
}

/// Reads the keys that the roles need. They are made where `make` allows it and all of the system is here; the audit
/// service's is its own and made where `make` allows it.
pub(super) fn secrets(config: &Config, roles: &[Role], make: bool) -> anyhow::Result<Secrets> {
    let whole = make && roles.len() == Role::ALL.len();
    let file = config.keys.page_token_file.as_deref().context("no file for the page token key")?;
    let page_token = secret_file(file, whole)?;
    let mut checks = KeyChecks::new();
    let mut check = |role, name, key: &[u8; 32], file: &Path| {
        let (value, place) = (key_check(name, key), file.display().to_string());
        checks.entry(role).or_default().push(KeyCheck { name, value, former: Vec::new(), place });
    };
    for role in [Role::Catalog, Role::Policy, Role::Provisioning] {
        check(role, "page token key", &page_token, file);
    }
    let mut sealing = None;
    if roles.contains(&Role::Provisioning) {
        let file = config.keys.sealing_file.as_deref().context("no file for the sealing key")?;
        let key = secret_file(file, whole)?;
        check(Role::Provisioning, "sealing key", &key, file);
        sealing = Some(key);
    }
    if roles.contains(&Role::Audit) {
        checks.insert(Role::Audit, vec![signing_check(config, make)?]);
    }
    Ok(Secrets { page_token, sealing, checks })
}

fn signing_check(config: &Config, make: bool) -> anyhow::Result<KeyCheck> {
    let place = match &config.audit.signing_key_file {
        Some(file) if !make && !file.exists() => bail!("{}", missing(file)),
        Some(file) => file.display().to_string(),
        None => "`audit.signing_key_pem`".to_owned(),
    };
    let value = pavior_audit::verifier_key(&config.audit)?;
    Ok(KeyCheck { name: "audit signing key", value, former: config.audit.former_keys.clone(), place })
}

/// The error for a key file that is missing and must not be made anew.
fn missing(file: &Path) -> String {
    format!(
        "`{}` is missing. A key is made beside empty databases only, because what was protected with the one before could \
         never be opened again: put it back. If the system is new and its services run apart, make the keys with `pavior \
         keys` and give them to every replica; if the key is lost, `pavior restore --accept-keys` makes another",
        file.display()
    )
}

fn private_directory(path: &Path) -> anyhow::Result<()> {
    pavior_files::private_directory(path).with_context(|| format!("cannot make `{}`", path.display()))
}

fn own_key(role: Role, private: &Path, public: &Path, make: bool) -> anyhow::Result<SigningKey> {
    let path = private.join(format!("{}.pem", role.name()));
    if !path.exists() && !make {
        bail!("{}", missing(&path));
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
    /// Reads the public keys of every role; makes all keys first where that is allowed and the whole system runs in
    /// this process.
    pub(super) fn load(
        config: &Config,
        roles: &[Role],
        make: bool,
        clock: &Arc<dyn Clock>,
        ids: &Arc<dyn IdGen>,
    ) -> anyhow::Result<Self> {
        let private = config.internal.private_key_dir.clone().context("no folder for private keys")?;
        let public = config.internal.public_key_dir.clone().context("no folder for public keys")?;
        let make = make && roles.len() == Role::ALL.len();
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

    /// The identity with which a role of this process calls others.
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
            bail!("{}", missing(path));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_may_read_the_public_keys_and_nothing_else() {
        // As the program does at its start.
        pavior_runtime::process::keep_files_private();
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("keys");
        // The second time, for what was made by a version that did not see to it.
        for _ in 0..2 {
            generate(&directory).unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&directory), 0o711);
            for entry in walkdir::WalkDir::new(&directory).min_depth(1) {
                let path = entry.unwrap().into_path();
                let wanted = match (path.starts_with(directory.join("public")), path.is_dir()) {
                    (true, true) => 0o755,
                    (true, false) => 0o644,
                    (false, true) => 0o700,
                    (false, false) => 0o600,
                };
                assert_eq!(mode(&path), wanted, "{}", path.display());
            }
            fs::set_permissions(directory.join("public"), fs::Permissions::from_mode(0o700)).unwrap();
            fs::set_permissions(directory.join("public/audit.pub.pem"), fs::Permissions::from_mode(0o600))
                .unwrap();
        }
    }
}
