//! The last checkpoint of every log outside of the database: files in a folder that no backup of the database holds.
//!
//! A database that was set back to an older copy is whole in itself: it verifies, and the records since are gone. Only
//! what was signed before and is kept elsewhere tells. So the newest checkpoint of each log is written here soon after
//! it is committed, and compared at start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::signer::Signer;
use crate::domain::note;
use crate::domain::tree::Edge;
use crate::error::{Error, SetBack};
use crate::store::{AuditStore, Sign as _};

/// The shortest time between two writes of the same log.
const PAUSE: Duration = Duration::from_secs(1);
/// What the names of the files end with.
const EXTENSION: &str = ".checkpoint";

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct SecondPlace {
    folder: PathBuf,
    signer: Signer,
}

/// A checkpoint that is kept there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    size: u64,
    root: [u8; 32],
}

impl SecondPlace {
    /// Opens the folder, which is made when it does not exist.
    pub(crate) fn open(folder: &Path, signer: Signer) -> Result<Self, Error> {
        let place = Self { folder: folder.to_owned(), signer };
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|e| place.failed("cannot be made", &e))?;
        Ok(place)
    }

    fn failed(&self, what: &str, error: &std::io::Error) -> Error {
        Error::SecondPlace(format!("`{}` {what}: {error}", self.folder.display()))
    }

    fn file(&self, log: &str) -> PathBuf {
        self.folder.join(format!("{log}{EXTENSION}"))
    }

    /// Reads the checkpoint of a log. A file that no key of this installation signed is refused, not passed over.
    fn read(&self, log: &str) -> Result<Option<Kept>, Error> {
        let path = self.file(log);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("cannot be read", &error)),
        };
        let kept = note::checkpoint(&text, &self.signer.origin(log)).map(|(size, root)| Kept { size, root });
        let kept = kept.filter(|kept| self.signer.has_signed(log, kept.size, &kept.root, &text));
        kept.map(Some).ok_or_else(|| {
            Error::SecondPlace(format!(
                "`{}` is not a checkpoint that the configured key or one of `former_keys` signed",
                path.display()
            ))
        })
    }

    /// Keeps a checkpoint, unless one that goes further is there already.
    fn write(&self, log: &str, edge: &Edge) -> Result<(), Error> {
        let failed = |error: std::io::Error| self.failed("cannot be written", &error);
        // Several processes may keep checkpoints here: what is read below must still be there when it is replaced.
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.folder.join("lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        let (size, path) = (edge.size(), self.file(log));
        match self.read(log)? {
            Some(kept) if kept.size >= size => return Ok(()),
            Some(_) => {
                let previous = self.folder.join(format!("{log}{EXTENSION}.previous"));
                replace(&previous, &fs::read(&path).map_err(failed)?).map_err(failed)?;
            }
            None => {}
        }
        let note = self.signer.sign(log, size, &edge.root(), 0).note;
        replace(&path, note.as_bytes()).map_err(failed)?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    /// Puts the file of a log aside, under a name that says how far it went, so that a new line can begin.
    pub(crate) fn put_aside(&self, log: &str, at: i64) -> Result<(), Error> {
        let path = self.file(log);
        let Some(kept) = self.read(log)? else { return Ok(()) };
        let aside = self.folder.join(format!("{log}{EXTENSION}.lost-{}-{at}", kept.size));
        fs::rename(&path, aside).map_err(|e| self.failed("cannot be changed", &e))
    }

    /// The logs that have a file.
    fn logs(&self) -> Result<Vec<String>, Error> {
        let mut logs = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|e| self.failed("cannot be read", &e))? {
            let name = entry.map_err(|e| self.failed("cannot be read", &e))?.file_name();
            logs.extend(name.to_str().and_then(|name| name.strip_suffix(EXTENSION)).map(str::to_owned));
        }
        logs.sort_unstable();
        Ok(logs)
    }

    /// The logs that do not go on from what is kept here: shorter ones, and those that went another way.
    pub(crate) async fn compare(&self, store: &AuditStore) -> Result<Vec<SetBack>, Error> {
        let mut found = Vec::new();
        for log in self.logs()? {
            let Some(Kept { size, root }) = self.read(&log)? else { continue };
            let has = store.size_unscoped(&log).await?;
            let forked = size <= has && store.root_at_unscoped(&log, size).await? != root;
            if size > has || forked {
                found.push(SetBack { log, has, signed: size, forked });
            }
        }
        Ok(found)
    }

    /// Keeps the checkpoint of every log as it is now, where it goes further.
    pub(crate) async fn keep_all(&self, store: &AuditStore) -> Result<(), Error> {
        for log in store.logs_unscoped().await? {
            let edge = store.edge_unscoped(&log).await?;
            if self.read(&log)?.is_none_or(|kept| kept.size < edge.size()) {
                self.write(&log, &edge)?;
            }
        }
        Ok(())
    }
}

/// Replaces a file at once and for good: a reader, and a crash, find the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut new = path.to_owned().into_os_string();
    new.push(".new");
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// The logs that have grown and are not kept yet.
type Grown = BTreeMap<String, Arc<Edge>>;

#[derive(Debug, Default)]
struct Shared {
    grown: Mutex<Grown>,
    trouble: Mutex<Option<String>>,
}

/// Tells the keeper what has grown. The keeper ends when it is gone.
#[derive(Debug)]
pub(crate) struct Remember {
    shared: Arc<Shared>,
    wake: watch::Sender<()>,
}

/// Writes checkpoints to the second place.
#[derive(Debug)]
pub(crate) struct Keeper {
    place: SecondPlace,
    shared: Arc<Shared>,
    wake: watch::Receiver<()>,
}

/// Whether the keeper can write.
#[derive(Debug, Clone)]
pub(crate) struct KeeperHealth(Arc<Shared>);

/// A keeper and the handle to it.
pub(crate) fn keeper(place: SecondPlace) -> (Remember, Keeper, KeeperHealth) {
    let (send, receive) = watch::channel(());
    let shared = Arc::new(Shared::default());
    let keeper = Keeper { place, shared: shared.clone(), wake: receive };
    (Remember { shared: shared.clone(), wake: send }, keeper, KeeperHealth(shared))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under the lock can leave it half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remember {
    /// Notes the newest state of logs.
    pub(crate) fn grown(&self, edges: &[(String, Arc<Edge>)]) {
        lock(&self.shared.grown).extend(edges.iter().cloned());
        self.wake.send_replace(());
    }
}

impl KeeperHealth {
    pub(crate) fn check(&self) -> Result<(), String> {
        lock(&self.0.trouble).clone().map_or(Ok(()), Err)
    }
}

impl Keeper {
    /// Writes until the writer of records is gone, and then once more: nothing that was committed is left out at an
    /// orderly end.
    pub(crate) async fn run(mut self) {
        loop {
            let writer_is_gone = self.wake.changed().await.is_err();
            self.keep().await;
            if writer_is_gone {
                return;
            }
            let _ = tokio::time::timeout(PAUSE, closed(&mut self.wake.clone())).await;
        }
    }

    async fn keep(&self) {
        let grown = std::mem::take(&mut *lock(&self.shared.grown));
        let place = self.place.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let mut left = Grown::new();
            let mut trouble = None;
            for (log, edge) in grown {
                if let Err(error) = place.write(&log, &edge) {
                    trouble = Some(error.to_string());
                    left.insert(log, edge);
                }
            }
            (left, trouble)
        });
        let Ok((left, trouble)) = kept.await else { return };
        if let Some(why) = &trouble {
            tracing::error!(why, "checkpoints cannot be kept in the second place");
        }
        let mut grown = lock(&self.shared.grown);
        for (log, edge) in left {
            grown.entry(log).or_insert(edge);
        }
        *lock(&self.shared.trouble) = trouble;
    }
}

/// Returns when there is no sender any more.
async fn closed(wake: &mut watch::Receiver<()>) {
    while wake.changed().await.is_ok() {}
}
