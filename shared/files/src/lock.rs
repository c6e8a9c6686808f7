//! The lock that keeps a second process away from files that one process works on.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Why a lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("it is in use by {holder}")]
    Held {
        /// Who, as they wrote down.
        holder: String,
    },
    /// The lock's file cannot be used.
    #[error("the lock's file cannot be used")]
    File(#[from] std::io::Error),
}

/// A lock on a file, held as long as the value lives. It goes with the open file, so a killed process leaves none
/// behind.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock whose file is `path`, made when it is not there, or says who has it.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let mut file =
            OpenOptions::new().create(true).read(true).write(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "a process that is not known".to_owned(),
                    known => known.to_owned(),
                };
                return Err(LockError::Held { holder });
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // Only for the message above; the lock itself does not depend on it.
        let note = format!("process {}", std::process::id());
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(note.as_bytes())?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_has_it() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("lock");
        let first = Lock::take(&path).unwrap();
        let LockError::Held { holder } = Lock::take(&path).unwrap_err() else { panic!("not held") };
        assert_eq!(holder, format!("process {}", std::process::id()));
        drop(first);
        Lock::take(&path).unwrap();
    }
}
