//! How much a repository may still get. What a push may bring is taken out of it before the push begins, so that pushes
//! beside each other share the room. Each push keeps what it brings in a folder of its own until git accepts it; with
//! the room goes the folder, whoever ended the push.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::files;

/// The folder of a repository in which each push has one.
const INCOMING: &str = "incoming";
/// How the folders begin in which git keeps what a push brings, where nothing else is said (git-receive-pack(1),
/// "Quarantine Environment").
const QUARANTINE: &str = "tmp_objdir-incoming-";

/// The room of all repositories.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// Those with pushes now.
    repositories: Mutex<HashMap<PathBuf, Arc<Repository>>>,
}

#[derive(Debug, Default)]
struct Repository {
    /// Measured by one push at a time: what one has got is seen by the next in the files or among the promises.
    turn: tokio::sync::Mutex<()>,
    promised: Mutex<Promised>,
}

#[derive(Debug, Default, Clone)]
struct Promised {
    bytes: u64,
    /// The folders of those pushes. Room was taken for what is in them.
    folders: BTreeSet<OsString>,
}

/// What a push may bring; it is given back when this is dropped, and what it has brought and was not accepted is removed.
#[derive(Debug)]
pub(super) struct Room {
    rooms: Arc<Rooms>,
    path: PathBuf,
    repository: Arc<Repository>,
    bytes: u64,
    is_cut: bool,
    folder: Option<tempfile::TempDir>,
}

impl Room {
    /// Whether there is less than was wanted.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Most bytes that the push may bring.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the folder that git takes for that of the repository's objects: it reads them all, keeps what the push brings
    /// in a folder below this one, and puts the pack with the others when it is accepted.
    pub(super) fn incoming(&mut self) -> std::io::Result<PathBuf> {
        let objects = self.path.join("objects");
        let incoming = self.path.join(INCOMING);
        std::fs::create_dir_all(objects.join("pack"))?;
        files::private_directory(&incoming)?;
        let folder = tempfile::Builder::new().prefix("push-").tempdir_in(incoming)?;
        let path = folder.path().to_owned();
        self.repository.promised().folders.extend(path.file_name().map(OsString::from));
        self.folder = Some(folder);
        std::fs::create_dir(path.join("info"))?;
        let mut line = objects.clone().into_os_string();
        line.push("\n");
        std::fs::write(path.join("info/alternates"), line.as_encoded_bytes())?;
        std::os::unix::fs::symlink(objects.join("pack"), path.join("pack"))?;
        Ok(path)
    }
}

impl Repository {
    fn promised(&self) -> MutexGuard<'_, Promised> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rooms {
    /// Takes room in a repository of at most `most` bytes, as much as there is and no more than `wanted`.
    ///
    /// # Errors
    /// When the repository's files cannot be looked at.
    pub(super) async fn take(self: &Arc<Self>, path: &Path, most: u64, wanted: u64) -> std::io::Result<Room> {
        let repository = {
            let mut repositories = self.repositories.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(repositories.entry(path.to_owned()).or_default())
        };
        let mut room = Room {
            rooms: Arc::clone(self),
            path: path.to_owned(),
            repository,
            bytes: 0,
            is_cut: false,
            folder: None,
        };
        let repository = Arc::clone(&room.repository);
        let _lock = repository.turn.lock().await;
        // Before the files are measured: what is given back meanwhile is in the files, and counts once too often at most.
        let Promised { bytes: promised, folders } = repository.promised().clone();
        let measured = path.to_owned();
        let used = tokio::task::spawn_blocking(move || size(&measured, &folders));
        let used = used.await.map_err(std::io::Error::other).flatten()?;
        let free = most.saturating_sub(used).saturating_sub(promised);
        room.is_cut = free < wanted;
        room.bytes = free.min(wanted);
        repository.promised().bytes += room.bytes;
        Ok(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let name = self.folder.as_ref().and_then(|folder| folder.path().file_name()).map(OsString::from);
        if let Some(Err(error)) = self.folder.take().map(tempfile::TempDir::close) {
            tracing::error!(%error, "what a push brought cannot be removed; it counts until the next start");
        }
        let mut promised = self.repository.promised();
        promised.bytes -= self.bytes;
        if let Some(name) = name {
            promised.folders.remove(&name);
        }
        drop(promised);
        let mut repositories = self.rooms.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&self.repository) == 2 {
            repositories.remove(&self.path);
        }
    }
}

/// Removes what pushes have brought that a process left that was killed, or git that was run by hand. Nobody may be
/// pushing.
pub(super) fn sweep(repository: &Path) -> std::io::Result<()> {
    remove(&repository.join(INCOMING))?;
    for entry in std::fs::read_dir(repository.join("objects"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(QUARANTINE) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The bytes of all files of a repository but for the folders of these pushes.
fn size(path: &Path, promised: &BTreeSet<OsString>) -> std::io::Result<u64> {
    let mut total = 0_u64;
    let incoming = path.join(INCOMING);
    let files = walkdir::WalkDir::new(path).into_iter();
    let counts = |entry: &walkdir::DirEntry| {
        !(entry.path().parent() == Some(&incoming) && promised.contains(entry.file_name()))
    };
    for entry in files.filter_entry(counts) {
        match entry.and_then(|entry| entry.metadata()) {
            Ok(found) if found.is_file() => total = total.saturating_add(found.len()),
            Ok(_) => {}
            // Another push has finished with it.
            Err(error) if error.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("objects")).unwrap();
        std::fs::write(folder.path().join("objects/kept"), [0; 100]).unwrap();
        folder
    }

    #[tokio::test]
    async fn pushes_beside_each_other_share_the_room() {
        let (folder, rooms) = (repository(), Arc::new(Rooms::default()));
        let first = rooms.take(folder.path(), 1_000, 600).await.unwrap();
        let second = rooms.take(folder.path(), 1_000, 600).await.unwrap();
        let third = rooms.take(folder.path(), 1_000, 600).await.unwrap();
        assert_eq!([first.bytes(), second.bytes(), third.bytes()], [600, 300, 0]);
        drop(first);
        assert_eq!(rooms.take(folder.path(), 1_000, 2_000).await.unwrap().bytes(), 600);
        drop((second, third));
        assert!(rooms.repositories.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_a_push_brought_goes_with_it_and_counts_as_long_as_it_stands() {
        let (folder, rooms) = (repository(), Arc::new(Rooms::default()));
        // Left by a process that was killed: it counts, until the next one starts.
        let left = folder.path().join("incoming/push-left");
        std::fs::create_dir_all(&left).unwrap();
        std::fs::write(left.join("pack"), [0; 300]).unwrap();
        let mut first = rooms.take(folder.path(), 1_000, 100).await.unwrap();
        let path = first.incoming().unwrap();
        std::fs::create_dir(path.join("tmp_objdir-incoming-a1")).unwrap();
        std::fs::write(path.join("tmp_objdir-incoming-a1/pack"), [0; 500]).unwrap();
        // What a push with a promise brings counts once.
        let second = rooms.take(folder.path(), 1_000, 1_000).await.unwrap();
        assert_eq!([first.bytes(), second.bytes()], [100, 500]);
        std::fs::write(folder.path().join("objects/pack/accepted"), [0; 50]).unwrap();
        assert_eq!(std::fs::read(path.join("pack/accepted")).unwrap().len(), 50);
        drop((first, second));
        assert!(!path.exists() && folder.path().join("objects/pack/accepted").exists());
        assert_eq!(rooms.take(folder.path(), 1_000, 1_000).await.unwrap().bytes(), 550);
        let by_hand = folder.path().join("objects/tmp_objdir-incoming-zz");
        std::fs::create_dir(&by_hand).unwrap();
        sweep(folder.path()).unwrap();
        assert!(!left.exists() && !by_hand.exists());
        assert_eq!(rooms.take(folder.path(), 1_000, 1_000).await.unwrap().bytes(), 850);
    }
}
