//! How much a repository may still get. What a push may bring is taken out of it before the push begins, so that pushes
//! beside each other share the room.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How the folder begins in which git keeps what a push brings until it is accepted (git-receive-pack(1), "Quarantine
/// Environment").
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
    promised: Mutex<u64>,
}

/// What a push may bring; it is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    rooms: Arc<Rooms>,
    path: PathBuf,
    repository: Arc<Repository>,
    bytes: u64,
    is_cut: bool,
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
}

impl Rooms {
    /// Takes room in a repository of at most `most` bytes, as much as there is and no more than `wanted`.
    ///
    /// # Errors
    /// When the repository's files cannot be looked at.
    pub(super) async fn take(self: &Arc<Self>, path: &Path, most: u64, wanted: u64) -> std::io::Result<Room> {
        let (repository, is_alone) = {
            let mut repositories = self.repositories.lock().unwrap_or_else(PoisonError::into_inner);
            let repository = Arc::clone(repositories.entry(path.to_owned()).or_default());
            // One is the map's, one is ours.
            let is_alone = Arc::strong_count(&repository) == 2;
            (repository, is_alone)
        };
        let mut room =
            Room { rooms: Arc::clone(self), path: path.to_owned(), repository, bytes: 0, is_cut: false };
        let repository = Arc::clone(&room.repository);
        let _turn = repository.turn.lock().await;
        // Before the files are measured: what is given back meanwhile is in the files, and counts once too often at most.
        let promised = *repository.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = path.to_owned();
        let used = tokio::task::spawn_blocking(move || {
            if is_alone {
                sweep(&folder)?;
            }
            size(&folder)
        });
        let used = used.await.map_err(std::io::Error::other).flatten()?;
        let free = most.saturating_sub(used).saturating_sub(promised);
        room.is_cut = free < wanted;
        room.bytes = free.min(wanted);
        *repository.promised.lock().unwrap_or_else(PoisonError::into_inner) += room.bytes;
        Ok(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *self.repository.promised.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        let mut repositories = self.rooms.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&self.repository) == 2 {
            repositories.remove(&self.path);
        }
    }
}

/// Removes what pushes have brought that were broken off. Nobody may be pushing.
pub(super) fn sweep(repository: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(repository.join("objects"))? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(QUARANTINE)) {
            match std::fs::remove_dir_all(entry.path()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The bytes of all files of a repository; what pushes are bringing is not among them, room was taken for that.
fn size(path: &Path) -> std::io::Result<u64> {
    let mut total = 0_u64;
    let files = walkdir::WalkDir::new(path).into_iter();
    let kept = |entry: &walkdir::DirEntry| {
        !(entry.depth() == 2 && entry.file_name().to_str().is_some_and(|name| name.starts_with(QUARANTINE)))
    };
    for entry in files.filter_entry(kept) {
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
    async fn what_a_broken_push_left_goes_with_the_next_one_that_is_alone() {
        let (folder, rooms) = (repository(), Arc::new(Rooms::default()));
        let left = folder.path().join("objects/tmp_objdir-incoming-a1");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("pack"), [0; 500]).unwrap();
        let first = rooms.take(folder.path(), 1_000, 100).await.unwrap();
        assert!(!left.exists());
        // This one is the first push's: it is neither removed nor counted twice.
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("pack"), [0; 500]).unwrap();
        let second = rooms.take(folder.path(), 1_000, 1_000).await.unwrap();
        assert!(left.exists());
        assert_eq!([first.bytes(), second.bytes()], [100, 800]);
    }
}
