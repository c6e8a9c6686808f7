//! Where repositories are, and whose each of them is.
//!
//! A repository has the name that its project has, and another may have that name later. So its identity is the name and
//! what tells it from others of that name: `{organization}/{name}@{mark}`, where the mark follows from the key of the call that
//! makes it. The repository itself bears its identity. One from before that has none, and is `{organization}/{name}`.

use std::path::{Path, PathBuf};

use pavior_core::digest::sha256_hex;
use pavior_driver::{Failure, FailureCode};

use crate::config::DriversConfig;
use crate::files;
use crate::ledger::LedgerEntry;
use crate::place::below;

/// The file of a repository that says which one it is.
const IDENTITY: &str = "pavior-identity";
/// So many digits of a digest make a mark.
const MARK: usize = 12;

/// Where repositories are, shared with the pipeline driver and the router.
#[derive(Debug, Clone)]
pub(crate) struct Repositories {
    pub(super) root: PathBuf,
    public_url: String,
}

impl Repositories {
    pub(crate) fn new(config: &DriversConfig) -> Self {
        let public_url = config.git.public_url.trim_end_matches('/').to_owned();
        Self { root: config.data_dir.join("repositories"), public_url }
    }

    pub(super) fn path(&self, organization: &str, name: &str) -> Result<PathBuf, Failure> {
        let path = below(&self.root, &[organization, name], ".git");
        path.filter(|_| is_name(organization) && is_name(name)).ok_or_else(|| {
            let message = format!("`{organization}/{name}` is not the name of a repository");
            Failure::new(FailureCode::InvalidArgument, message)
        })
    }

    /// The directories of all repositories.
    pub(super) fn all(&self) -> std::io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in walkdir::WalkDir::new(&self.root).min_depth(2).max_depth(2) {
            let entry = entry?;
            if entry.file_type().is_dir() && entry.path().join("objects").is_dir() {
                found.push(entry.into_path());
            }
        }
        Ok(found)
    }

    pub(super) fn url(&self, organization: &str, name: &str) -> String {
        format!("{}/git/{organization}/{name}.git", self.public_url)
    }

    /// Whether a thing is there: a repository of its name, and that very one.
    pub(super) fn has(&self, entry: &LedgerEntry) -> bool {
        let path = own_name(entry).and_then(|name| self.path(&entry.organization, name).ok());
        // One that cannot be read for a moment has not gone.
        let is_it =
            |path: &PathBuf| borne(path, &entry.organization).map_or(true, |borne| borne == entry.identity);
        path.is_some_and(|path| path.is_dir() && is_it(&path))
    }

    /// The directory of an organization's own repository, given by name, by path or by our own address.
    pub(crate) fn local(&self, organization: &str, repository: &str) -> Option<PathBuf> {
        let below = repository.strip_prefix(&format!("{}/git/", self.public_url)).map(str::to_owned);
        let below = below.or_else(|| {
            let path = Path::new(repository).strip_prefix(&self.root).ok()?;
            Some(path.to_str()?.to_owned())
        });
        let below = below.unwrap_or_else(|| format!("{repository}.git"));
        let (owner, name) = below.split_once('/')?;
        let name = name.strip_suffix(".git")?;
        let path = self.path(owner, name).ok()?;
        (owner == organization && path.is_dir()).then_some(path)
    }
}

/// Ids as `pavior_core::name` allows them: nothing that a path or a command line could take for something else.
pub(super) fn is_name(text: &str) -> bool {
    pavior_core::id::validate_id(text).is_ok()
}

/// The identity of a repository that a call makes.
pub(super) fn identity(organization: &str, name: &str, key: &str) -> String {
    let mark = sha256_hex(key.as_bytes());
    format!("{organization}/{name}@{}", mark.get(..MARK).unwrap_or_default())
}

/// The name in an identity, and what stands behind the organization in those from before there were marks.
pub(super) fn name_in<'a>(identity: &'a str, organization: &str) -> Option<&'a str> {
    let name = identity.strip_prefix(organization)?.strip_prefix('/')?;
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    is_name(name).then_some(name)
}

/// The repository's name.
pub(super) fn own_name(entry: &LedgerEntry) -> Option<&str> {
    name_in(&entry.identity, &entry.organization)
}

/// The identity that a repository of an organization bears. One from before there were marks bears its name.
pub(super) fn borne(path: &Path, organization: &str) -> std::io::Result<String> {
    match std::fs::read_to_string(path.join(IDENTITY)) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            Ok(format!("{organization}/{name}"))
        }
        Err(error) => Err(error),
    }
}

/// Lets a repository that is being made bear its identity.
pub(super) fn mark(path: &Path, identity: &str) -> std::io::Result<()> {
    files::write(&path.join(IDENTITY), format!("{identity}\n").as_bytes())
}
