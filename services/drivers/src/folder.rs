//! The drivers' folder: one process works on it, one key fits it, and what in it is damaged is set apart by name.

use std::path::{Path, PathBuf};

use pavior_files::{Lock, LockError};

use crate::Error;
use crate::files;
use crate::keyring::{DriversKey, Keyring};

/// Shared by all drivers of a process. The lock goes with the last of them.
pub(crate) struct Folder {
    path: PathBuf,
    keyring: Keyring,
    /// Where it was before it was moved here, longest first.
    former: Vec<String>,
    _lock: Lock,
}

impl Folder {
    /// Takes the folder for this process, and refuses one that was made with another key: nothing that stands in it
    /// could be opened, and passwords made anew would not be those that are recorded.
    pub(crate) fn open(path: &Path, keyring: Keyring) -> Result<Self, Error> {
        let failed = |source| Error::Data { path: path.to_owned(), source };
        files::own_directory(path).map_err(failed)?;
        let own = path.join("drivers");
        files::private_directory(&own).map_err(failed)?;
        let lock = Lock::take(&own.join("lock")).map_err(|error| match error {
            LockError::Held { holder } => Error::InUse { path: path.to_owned(), holder },
            LockError::File(source) => failed(source),
        })?;
        let check = own.join("key-check");
        match std::fs::read_to_string(&check) {
            Ok(known) if known.trim() == keyring.check() => {}
            Ok(_) => return Err(Error::ForeignKey { path: path.to_owned() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if in_use(&own).map_err(failed)? {
                    return Err(Error::ForeignKey { path: path.to_owned() });
                }
                files::write(&check, keyring.check().as_bytes()).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        let former = places(&own.join("places"), path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), keyring, former, _lock: lock })
    }

    /// A text with the paths below this folder as they are now. What is recorded elsewhere (inputs, outputs, sealed
    /// variables) holds them as they were when it was recorded, and a folder may be moved.
    pub(crate) fn here(&self, text: &str) -> String {
        let current = self.path.to_string_lossy();
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('/') {
            let (before, found) = rest.split_at(at);
            result.push_str(before);
            // Inside of a longer path, a place's name is something else.
            let inside = before.ends_with(|c: char| c.is_ascii_alphanumeric() || "._-".contains(c));
            let begins = |place: &str| {
                found.strip_prefix(place).is_some_and(|next| next.is_empty() || next.starts_with('/'))
            };
            let place = std::iter::once(&*current)
                .chain(self.former.iter().map(String::as_str))
                .filter(|place| !inside && begins(place))
                .max_by_key(|place| place.len());
            match place {
                Some(place) => {
                    result.push_str(&current);
                    rest = &found[place.len()..];
                }
                None => {
                    result.push('/');
                    rest = &found[1..];
                }
            }
        }
        result + rest
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.keyring
    }
}

/// Whether a key is the one that the drivers' folder was made with; nothing when there is no such folder yet. Takes no
/// lock: for a look from beside a running platform.
pub fn key_fits(path: &Path, key: &DriversKey) -> std::io::Result<Option<bool>> {
    let keyring = Keyring::new(key)?;
    match std::fs::read_to_string(path.join("drivers").join("key-check")) {
        Ok(known) => Ok(Some(known.trim() == keyring.check())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The places where the folder was, from its own list, to which the present one is added.
fn places(list: &Path, path: &Path) -> std::io::Result<Vec<String>> {
    let mut known: Vec<String> = files::read_json(list)?.unwrap_or_default();
    let current = path.to_string_lossy().into_owned();
    if !known.contains(&current) {
        known.push(current.clone());
        files::write_json(list, &known)?;
    }
    known.retain(|place| *place != current && place.len() > 1);
    Ok(known)
}

/// Whether any driver has recorded anything.
fn in_use(own: &Path) -> std::io::Result<bool> {
    for driver in std::fs::read_dir(own)? {
        match std::fs::read_dir(driver?.path().join("things")) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Ok(true);
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(byte: u8) -> Keyring {
        Keyring::new(&DriversKey::derive(&[byte; 32])).unwrap()
    }

    #[test]
    fn a_second_process_is_told_who_has_the_folder() {
        let base = tempfile::tempdir().unwrap();
        let first = Folder::open(&base.path().join("data"), keyring(1)).unwrap();
        let Err(Error::InUse { holder, .. }) = Folder::open(&base.path().join("data"), keyring(1)) else {
            panic!("not refused")
        };
        assert_eq!(holder, format!("process {}", std::process::id()));
        drop(first);
        Folder::open(&base.path().join("data"), keyring(1)).unwrap();
    }

    #[test]
    fn a_folder_of_another_key_is_refused() {
        let base = tempfile::tempdir().unwrap();
        drop(Folder::open(&base.path().join("data"), keyring(1)).unwrap());
        let refused = |byte| {
            matches!(Folder::open(&base.path().join("data"), keyring(byte)), Err(Error::ForeignKey { .. }))
        };
        assert!(refused(2));
        // Without the check value, only an empty folder is taken for a new one.
        std::fs::remove_file(base.path().join("data/drivers/key-check")).unwrap();
        drop(Folder::open(&base.path().join("data"), keyring(2)).unwrap());
        std::fs::remove_file(base.path().join("data/drivers/key-check")).unwrap();
        std::fs::create_dir_all(base.path().join("data/drivers/git/things/x.json")).unwrap();
        assert!(refused(2));
    }

    #[test]
    fn paths_follow_a_folder_that_was_moved() {
        let base = tempfile::tempdir().unwrap();
        let (old, new) = (base.path().join("data"), base.path().join("data/new"));
        drop(Folder::open(&old, keyring(1)).unwrap());
        let aside = base.path().join("aside");
        std::fs::rename(&old, &aside).unwrap();
        files::private_directory(&old).unwrap();
        std::fs::rename(&aside, &new).unwrap();
        let folder = Folder::open(&new, keyring(1)).unwrap();
        let (was, is) = (old.display().to_string(), new.display().to_string());
        for (text, want) in [
            (
                format!("sqlite://{was}/databases/acme/x.db?mode=rw"),
                format!("sqlite://{is}/databases/acme/x.db?mode=rw"),
            ),
            (format!("--a={was}/x:{was}/y"), format!("--a={is}/x:{is}/y")),
            (was.clone(), is.clone()),
            (format!("{is}/x"), format!("{is}/x")),
            (format!("{was}s/x"), format!("{was}s/x")),
            (format!("/other{was}/x"), format!("/other{was}/x")),
            ("no/path // at all/".to_owned(), "no/path // at all/".to_owned()),
        ] {
            assert_eq!(folder.here(&text), want);
        }
    }

    #[test]
    fn a_folder_that_others_may_enter_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("data")).unwrap();
        std::fs::set_permissions(base.path().join("data"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let Err(Error::Data { source, .. }) = Folder::open(&base.path().join("data"), keyring(1)) else {
            panic!("not refused")
        };
        assert!(source.to_string().contains("chmod 700"), "{source}");
    }
}
