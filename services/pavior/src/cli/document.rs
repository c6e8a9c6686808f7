//! The YAML files that commands read, and what becomes of the documents in them.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::failure::{OrUsage as _, wrong_usage};

/// A YAML file and where it came from.
#[derive(Debug, Clone)]
pub struct Source {
    /// What to call it in messages.
    pub origin: String,
    /// Its text.
    pub text: String,
}

/// What was done with one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It did not exist.
    Created,
    /// It was different.
    Updated,
    /// It was so already.
    Unchanged,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
        })
    }
}

/// Reads the YAML files below the given paths, in the order of their names.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    read_matching(paths, |path| path.extension().is_some_and(|e| e == "yaml" || e == "yml"))
}

/// Reads the files below the given paths that are wanted, in the order of their names; a path that is itself a file is
/// always wanted.
pub(crate) fn read_matching(
    paths: &[PathBuf],
    wanted: impl Fn(&Path) -> bool,
) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in paths {
        if !path.exists() {
            return Err(wrong_usage(format!("`{}` does not exist", path.display())));
        }
        for entry in walkdir::WalkDir::new(path).sort_by_file_name() {
            let entry = entry?;
            if entry.file_type().is_file() && (wanted(entry.path()) || entry.path() == path.as_path()) {
                sources.push(read_file(entry.path())?);
            }
        }
    }
    Ok(sources)
}

pub(crate) fn read_file(path: &Path) -> anyhow::Result<Source> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read `{}`", path.display()))
        .or_usage()?;
    Ok(Source { origin: path.display().to_string(), text })
}
