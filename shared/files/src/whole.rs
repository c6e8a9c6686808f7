//! Files that are whole or not there: temporary file, fsync, rename, fsync of the directory.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::private_directory;

/// Replaces a file durably.
pub fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    private_directory(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_directory(directory)
}

/// Makes durable what was made, renamed or removed in a folder.
pub fn sync_directory(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

/// As [`write()`], with the value as JSON.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> std::io::Result<()> {
    write(path, &serde_json::to_vec(value).map_err(std::io::Error::other)?)
}

/// The file's value, or nothing when it does not exist. A file that holds something else is an error of kind
/// `InvalidData`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> std::io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(std::io::Error::new(std::io::ErrorKind::InvalidData, error)),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a file that must not exist yet and that only its owner may read.
pub fn create_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Removes a file durably; success when it is not there.
pub fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_directory(path.parent().unwrap_or(Path::new("."))),
    }
}

/// Removes a file, or a directory and all in it, read-only or not; success when it is not there.
pub fn remove_tree(path: &Path) -> std::io::Result<()> {
    match remove_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            permit(path, |mode| mode | 0o700, |_| None)?;
            remove_all(path)
        }
        other => other,
    }
}

fn remove_all(path: &Path) -> std::io::Result<()> {
    let gone = match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes the right to write from a file, or from a directory and all in it.
pub fn read_only(path: &Path) -> std::io::Result<()> {
    permit(path, |mode| mode & 0o555, |mode| Some(mode & 0o555))
}

/// Sets the modes of all directories, and of files where one is given. Links are left alone.
fn permit(
    path: &Path,
    directory: impl Fn(u32) -> u32,
    file: impl Fn(u32) -> Option<u32>,
) -> std::io::Result<()> {
    for entry in walkdir::WalkDir::new(path) {
        let entry = entry.map_err(std::io::Error::other)?;
        let mode = entry.metadata().map_err(std::io::Error::other)?.permissions().mode();
        let wanted = match (entry.file_type().is_dir(), entry.file_type().is_file()) {
            (true, _) => Some(directory(mode)),
            (_, true) => file(mode),
            _ => None,
        };
        if let Some(wanted) = wanted {
            std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(wanted))?;
        }
    }
    Ok(())
}

/// Removes the folders in `directory` whose names begin with `prefix`.
pub fn sweep(directory: &Path, prefix: &str) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.path().is_dir() && entry.file_name().to_string_lossy().starts_with(prefix) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
