//! Folders that only their owner may enter.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A file or folder that others than its owner may use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` may be used by others than its owner (mode {mode:04o}): run `chmod {wanted} {path}`", path = path.display())]
pub struct TooOpen {
    /// The file or folder.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
    /// The permissions that it should have, as `chmod` takes them.
    pub wanted: &'static str,
}

/// Makes a folder that only its owner may enter, with those above it. One that is there stays as it is.
pub fn private_directory(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Lets everybody enter a folder and read the files in it, whatever the umask was when they were made; only the owner may
/// change them.
pub fn publish(folder: &Path) -> std::io::Result<()> {
    let allow = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            allow(&entry.path(), 0o644)?;
        }
    }
    allow(folder, 0o755)
}

/// A folder below the system's one for temporary files, as private as the others; it goes with the value.
pub fn temporary_directory(prefix: &str) -> std::io::Result<tempfile::TempDir> {
    temporary_directory_in(&std::env::temp_dir(), prefix)
}

/// The same in a folder of the caller's choice.
pub fn temporary_directory_in(parent: &Path, prefix: &str) -> std::io::Result<tempfile::TempDir> {
    let private = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix(prefix).permissions(private).tempdir_in(parent)
}

/// Whether group or others may use a file or folder; `None` when they may not, or it is not there.
pub fn too_open(path: &Path) -> std::io::Result<Option<TooOpen>> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mode = metadata.permissions().mode() & 0o777;
    let wanted = if metadata.is_dir() { "700" } else { "600" };
    Ok((mode & 0o077 != 0).then(|| TooOpen { path: path.to_owned(), mode, wanted }))
}

/// Makes a folder as [`private_directory`] does, and refuses one that others may enter: whoever opened it may have
/// read what stands in it, and only its owner can say whether that was meant.
pub fn own_directory(path: &Path) -> std::io::Result<()> {
    private_directory(path)?;
    match too_open(path)? {
        None => Ok(()),
        Some(open) => Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, open)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_others_may_enter_is_refused_with_what_to_do() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/b");
        own_directory(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        for mode in [0o755, 0o710, 0o701, 0o770] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = own_directory(&path).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{mode:o}");
            assert!(error.to_string().contains(&format!("chmod 700 {}", path.display())), "{error}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        own_directory(&path).unwrap();
    }

    #[test]
    fn a_file_that_others_may_read_is_named() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("key");
        assert_eq!(too_open(&path).unwrap(), None);
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let open = too_open(&path).unwrap().unwrap();
        assert_eq!((open.mode, open.wanted), (0o640, "600"));
    }
}
