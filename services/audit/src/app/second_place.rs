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

use super::damage::Inspection;
use super::signer::Signer;
use crate::domain::note;
use crate::domain::tree::Edge;
use crate::error::{Error, SetBack};
use crate::store::{AuditStore, Sign as _};

/// How the keeper waits.
const PACE: Pace = Pace {
    pause: Duration::from_secs(1),
    retry: Duration::from_millis(500),
    longest: Duration::from_secs(30),
};
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

    /// The logs that do not go on from what is kept here: shorter ones, and those that went another way. Of one that
    /// is damaged neither can be told; it is compared when it is whole again.
    pub(crate) async fn compare(
        &self,
        store: &AuditStore,
        inspection: &Inspection,
    ) -> Result<Vec<SetBack>, Error> {
        let mut found = Vec::new();
        for log in self.logs()? {
            if !inspection.damaged.contains_key(&log) {
                found.extend(self.compare_log(store, &log).await?);
            }
        }
        Ok(found)
    }

    /// The same of one log.
    pub(crate) async fn compare_log(&self, store: &AuditStore, log: &str) -> Result<Option<SetBack>, Error> {
        let Some(Kept { size, root }) = self.read(log)? else { return Ok(None) };
        let has = store.size_unscoped(log).await?;
        let forked = size <= has && store.root_at_unscoped(log, size).await? != root;
        let set_back = size > has || forked;
        Ok(set_back.then(|| SetBack { log: log.to_owned(), has, signed: size, forked }))
    }

    /// Keeps the checkpoints of logs as they were found, where they go further.
    pub(crate) fn keep_all(&self, inspection: &Inspection) -> Result<(), Error> {
        for (log, edge) in &inspection.sound {
            if self.read(log)?.is_none_or(|kept| kept.size < edge.size()) {
                self.write(log, edge)?;
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
    trouble: Mutex<Option<Trouble>>,
}

/// Why checkpoints cannot be kept.
#[derive(Debug)]
struct Trouble {
    why: String,
    /// How often it was tried since it was well.
    tried: u32,
}

/// How long the keeper waits.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Between two writes of the same log, at least.
    pause: Duration,
    /// Until what failed is tried again; twice as long after each failure.
    retry: Duration,
    /// The longest such time.
    longest: Duration,
}

/// Tells the keeper what has grown. The keeper ends when it is gone.
#[derive(Debug)]
pub(crate) struct Remember {
    place: SecondPlace,
    shared: Arc<Shared>,
    wake: watch::Sender<()>,
}

/// Writes checkpoints to the second place.
#[derive(Debug)]
pub(crate) struct Keeper {
    place: SecondPlace,
    shared: Arc<Shared>,
    wake: watch::Receiver<()>,
    pace: Pace,
}

/// Whether the keeper can write.
#[derive(Debug, Clone)]
pub(crate) struct KeeperHealth(Arc<Shared>);

/// A keeper and the handle to it.
pub(crate) fn keeper(place: SecondPlace) -> (Remember, Keeper, KeeperHealth) {
    let (send, receive) = watch::channel(());
    let shared = Arc::new(Shared::default());
    let remember = Remember { place: place.clone(), shared: shared.clone(), wake: send };
    let keeper = Keeper { place, shared: shared.clone(), wake: receive, pace: PACE };
    (remember, keeper, KeeperHealth(shared))
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

    /// Whether a log goes on from what is kept of it.
    pub(crate) async fn compare(&self, store: &AuditStore, log: &str) -> Result<Option<SetBack>, Error> {
        self.place.compare_log(store, log).await
    }
}

impl KeeperHealth {
    pub(crate) fn check(&self) -> Result<(), String> {
        match &*lock(&self.0.trouble) {
            Some(Trouble { why, tried: 1 }) => Err(why.clone()),
            Some(Trouble { why, tried }) => Err(format!("{why}; tried {tried} times")),
            None => Ok(()),
        }
    }
}

impl Keeper {
    /// Writes until the writer of records is gone, and then once more: nothing that was committed is left out at an
    /// orderly end. What could not be written is tried again by itself, and sooner when there is more to write.
    pub(crate) async fn run(mut self) {
        let Pace { pause, retry, longest } = self.pace;
        let mut next = retry;
        let mut kept = true;
        loop {
            let writer_is_gone = match kept {
                true => self.wake.changed().await.is_err(),
                false => tokio::time::timeout(next, self.wake.changed())
                    .await
                    .is_ok_and(|changed| changed.is_err()),
            };
            next = if kept { retry } else { (next * 2).min(longest) };
            kept = self.keep().await;
            if writer_is_gone {
                return;
            }
            let _ = tokio::time::timeout(pause, closed(&mut self.wake.clone())).await;
        }
    }

    /// Whether nothing is left to write.
    async fn keep(&self) -> bool {
        let grown = std::mem::take(&mut *lock(&self.shared.grown));
        let place = self.place.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let mut left = Grown::new();
            let mut why = None;
            for (log, edge) in grown {
                if let Err(error) = place.write(&log, &edge) {
                    why = Some(error.to_string());
                    left.insert(log, edge);
                }
            }
            (left, why)
        });
        // Lost only when the runtime ends, or by a panic, after which nothing is written any more.
        let Ok((left, why)) = kept.await else { return true };
        let mut grown = lock(&self.shared.grown);
        for (log, edge) in left {
            grown.entry(log).or_insert(edge);
        }
        let mut trouble = lock(&self.shared.trouble);
        let tried = trouble.as_ref().map_or(1, |trouble| trouble.tried.saturating_add(1));
        match &why {
            Some(why) if tried == 1 => tracing::error!(why, "checkpoints cannot be kept in the second place"),
            Some(why) => tracing::debug!(why, tried, "checkpoints still cannot be kept in the second place"),
            None if trouble.is_some() => tracing::info!("checkpoints are kept in the second place again"),
            None => {}
        }
        *trouble = why.map(|why| Trouble { why, tried });
        trouble.is_none()
    }
}

/// Returns when there is no sender any more.
async fn closed(wake: &mut watch::Receiver<()>) {
    while wake.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pavior_testkit::wait_for;

    use super::*;
    use crate::app::damage;
    use crate::config::Config;
    use crate::domain::hash;

    const LIMIT: Duration = Duration::from_secs(20);

    fn config(folder: &tempfile::TempDir) -> Config {
        Config { signing_key_file: Some(folder.path().join("keys/audit.pem")), ..Config::default() }
    }

    fn edge(records: u8) -> Edge {
        let mut edge = Edge::default();
        edge.append((0..records).map(|n| hash::leaf(&[n])));
        edge
    }

    fn size(place: &SecondPlace, log: &str) -> Option<u64> {
        place.read(log).unwrap().map(|kept| kept.size)
    }

    #[tokio::test]
    async fn what_could_not_be_kept_is_tried_again_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("checkpoints");
        let signer = Signer::load(&config(&folder)).unwrap();
        let place = SecondPlace::open(&place, signer).unwrap();
        let (remember, mut keeper, health) = keeper(place.clone());
        let step = Duration::from_millis(5);
        keeper.pace = Pace { pause: step, retry: step, longest: step * 4 };
        let running = tokio::spawn(keeper.run());
        // A file stands where the folder was.
        fs::remove_dir(&place.folder).unwrap();
        fs::write(&place.folder, "").unwrap();
        remember.grown(&[("acme".to_owned(), Arc::new(edge(3)))]);
        wait_for("the second failure", LIMIT, async || match health.check() {
            Err(why) if why.contains("cannot be written") && why.contains("; tried ") => Ok(()),
            other => Err(other),
        })
        .await;
        fs::remove_file(&place.folder).unwrap();
        fs::create_dir(&place.folder).unwrap();
        // Nothing more is appended.
        wait_for("a keeper that is well", LIMIT, async || health.check()).await;
        assert_eq!(size(&place, "acme"), Some(3));
        // It waits for what comes, and ends with whoever tells it.
        remember.grown(&[("acme".to_owned(), Arc::new(edge(5)))]);
        drop(remember);
        tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
        assert_eq!(size(&place, "acme"), Some(5));
    }

    #[tokio::test]
    async fn a_keeper_that_cannot_write_ends_at_shutdown() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("checkpoints");
        let signer = Signer::load(&config(&folder)).unwrap();
        let place = SecondPlace::open(&place, signer).unwrap();
        let (remember, mut keeper, health) = keeper(place.clone());
        keeper.pace.retry = Duration::from_secs(600);
        let running = tokio::spawn(keeper.run());
        fs::remove_dir(&place.folder).unwrap();
        remember.grown(&[("acme".to_owned(), Arc::new(edge(3)))]);
        wait_for("a failure", LIMIT, async || health.check().err().ok_or("it is well")).await;
        drop(remember);
        tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
    }

    /// What is kept is one state of a log, whatever is appended beside it.
    #[tokio::test(flavor = "multi_thread")]
    async fn logs_that_grow_are_inspected_and_kept_as_they_were_at_one_moment() {
        pavior_testkit::db::both(|db| async move {
            let folder = tempfile::tempdir().unwrap();
            let signer = Signer::load(&config(&folder)).unwrap();
            let place = SecondPlace::open(&folder.path().join("checkpoints"), signer.clone()).unwrap();
            let store = AuditStore::open(db.connect().await).await.unwrap();
            let grow = async {
                for seq in 1..=300 {
                    store.grow_by_one("acme", seq, &signer).await;
                }
            };
            let look = async {
                for _ in 0..60 {
                    let inspection = damage::inspect(&store, &signer).await.unwrap();
                    assert_eq!(inspection.damaged, BTreeMap::new());
                    place.keep_all(&inspection).unwrap();
                    assert_eq!(place.compare(&store, &inspection).await.unwrap(), []);
                }
            };
            tokio::join!(grow, look);
            // What was found before is no news, and does not set back what is kept since.
            let before = damage::inspect(&store, &signer).await.unwrap();
            store.grow_by_one("acme", 301, &signer).await;
            place.keep_all(&damage::inspect(&store, &signer).await.unwrap()).unwrap();
            place.keep_all(&before).unwrap();
            assert_eq!(size(&place, "acme"), Some(301));
        })
        .await;
    }
}
