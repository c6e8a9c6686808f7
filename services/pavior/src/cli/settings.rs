//! What `pavior login` remembers: `$XDG_CONFIG_HOME/pavior/config.toml` (or `~/.config/…`), readable by its owner only.

use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::args::ConnectionArgs;
use super::client::Connection;
use super::failure::OrUsage as _;

const DEFAULT_SERVER: &str = "http://127.0.0.1:7410";

/// The remembered connection.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The gateway's address.
    pub server: Option<String>,
    /// The bearer token.
    pub token: Option<String>,
    /// The caller's organization.
    pub organization: Option<String>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("server", &self.server).finish_non_exhaustive()
    }
}

fn path() -> anyhow::Result<PathBuf> {
    let base = match env::var_os("XDG_CONFIG_HOME").filter(|v| !v.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env::var_os("HOME").context("neither XDG_CONFIG_HOME nor HOME is set")?)
            .join(".config"),
    };
    Ok(base.join("pavior").join("config.toml"))
}

impl Settings {
    /// Reads the file; nothing remembered when there is none.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let Ok(path) = path() else { return Ok(Self::default()) };
        match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("in `{}`", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        }
    }

    /// Writes the file, whole or not at all, readable by its owner only.
    pub(crate) fn save(&self) -> anyhow::Result<PathBuf> {
        let path = path()?;
        self.save_to(&path).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(path)
    }

    fn save_to(&self, path: &Path) -> anyhow::Result<()> {
        let directory = path.parent().context("the settings file has no folder")?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let draft = path.with_extension("toml.new");
        // A draft that was left behind keeps its mode; a new one is private from the first byte.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        write_private(&draft, toml::to_string(self)?.as_bytes())?;
        fs::rename(&draft, path)?;
        Ok(())
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(())
}

/// Puts together the connection: flags and environment first, then what is remembered, then the default.
pub(crate) fn connection(args: &ConnectionArgs) -> anyhow::Result<Connection> {
    let remembered = Settings::load()?;
    let token = match (&args.token_file, env::var("PAVIOR_TOKEN").ok().filter(|t| !t.is_empty())) {
        (Some(file), _) => Some(
            fs::read_to_string(file)
                .with_context(|| format!("cannot read the token file `{}`", file.display()))
                .or_usage()?
                .trim()
                .to_owned(),
        ),
        (None, Some(token)) => Some(token),
        (None, None) => remembered.token,
    };
    let ca_pem = match &args.ca_file {
        Some(file) => {
            Some(fs::read(file).with_context(|| format!("cannot read `{}`", file.display())).or_usage()?)
        }
        None => None,
    };
    Ok(Connection {
        server: given(&args.server).or(remembered.server).unwrap_or_else(|| DEFAULT_SERVER.to_owned()),
        token,
        organization: given(&args.organization).or(remembered.organization),
        ca_pem,
    })
}

/// A value that is not empty: an empty environment variable says nothing.
fn given(value: &Option<String>) -> Option<String> {
    value.clone().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_is_for_its_owner_only_even_when_it_was_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pavior").join("config.toml");
        let settings = Settings { token: Some("t".to_owned()), ..Settings::default() };
        settings.save_to(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        // A draft that somebody left open to all does not lend its mode to the file.
        fs::write(path.with_extension("toml.new"), "").unwrap();
        settings.save_to(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(!format!("{settings:?}").contains("token"));
    }
}
