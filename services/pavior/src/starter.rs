//! The starter kit of `deploy/starter`, embedded so that the binary is complete by itself.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use include_dir::{Dir, DirEntry, include_dir};

use crate::cli::apply::Source;

static STARTER: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../deploy/starter");

/// Which database fulfils `sql-database`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Databases {
    /// SQLite files.
    Sqlite,
    /// Databases on a configured PostgreSQL server.
    Postgres,
}

/// The id of the organization that the starter kit describes.
pub const ORGANIZATION: &str = "acme";

/// The documents to apply, in order: the organization, its definition of databases, the golden paths.
pub fn documents(databases: Databases) -> anyhow::Result<Vec<Source>> {
    let database = match databases {
        Databases::Sqlite => "databases/sqlite",
        Databases::Postgres => "databases/postgres",
    };
    let mut sources = Vec::new();
    for folder in ["organization", database, "templates"] {
        let dir = STARTER.get_dir(folder).with_context(|| format!("the starter kit has no `{folder}`"))?;
        let mut files: Vec<_> = dir.files().collect();
        files.sort_by_key(|file| file.path());
        for file in files {
            let text =
                file.contents_utf8().with_context(|| format!("`{}` is not UTF-8", file.path().display()))?;
            sources.push(Source { origin: file.path().display().to_string(), text: text.to_owned() });
        }
    }
    Ok(sources)
}

/// Writes the skeletons below `directory` and returns their root. What is there already is written again, so that a
/// newer binary brings its newer skeletons.
pub fn write_skeletons(directory: &Path) -> anyhow::Result<PathBuf> {
    let skeletons = STARTER.get_dir("skeletons").context("the starter kit has no skeletons")?;
    let root = directory.join("skeletons");
    write(skeletons, skeletons.path(), &root)?;
    Ok(root)
}

fn write(dir: &Dir<'_>, base: &Path, target: &Path) -> anyhow::Result<()> {
    for entry in dir.entries() {
        match entry {
            DirEntry::Dir(dir) => write(dir, base, target)?,
            DirEntry::File(file) => {
                let path = target.join(file.path().strip_prefix(base)?);
                let parent = path.parent().context("a skeleton file has no folder")?;
                std::fs::create_dir_all(parent)?;
                std::fs::write(&path, file.contents())
                    .with_context(|| format!("cannot write `{}`", path.display()))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_starter_kit_is_complete() {
        for databases in [Databases::Sqlite, Databases::Postgres] {
            let documents = documents(databases).unwrap();
            assert!(documents.iter().any(|d| d.origin.ends_with("60-sql-database.yaml")));
            assert!(documents.iter().any(|d| d.origin == "templates/web-service.yaml"));
            for document in documents {
                pavior_expr::yaml::parse_documents(&document.text).unwrap();
            }
        }
    }

    #[test]
    fn skeletons_are_written_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let root = write_skeletons(dir.path()).unwrap();
        for language in ["rust", "python"] {
            assert!(root.join("web-service").join(language).join("README.md").is_file());
        }
        assert!(root.join("web-service/rust/.gitignore").is_file());
    }
}
