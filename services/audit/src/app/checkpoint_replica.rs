//! The replica of checkpoints: the last one of every log, as files in a folder that no backup of the database holds.
//!
//! A database that was set back to an older copy is consistent in itself: it verifies, and the records since are gone. Only
//! what was signed before and is elsewhere tells. So the newest checkpoint of each log is published here soon after it is
//! committed, and compared at start. It is replaced only by one that was proven to go on from it, or from the state that an
//! operator accepted since: each has its generation, so that a folder of another host, which `pavior restore` never saw,
//! learns of it from the database.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::inspection::Inspection;
use super::signer::Signer;
use crate::domain::checkpoint::CheckpointSigner;
use crate::domain::log_state::LogState;
use crate::domain::tree::Edge;
use crate::error::{Error, Rollback};
use crate::store::{AuditStore, ReleaseCondition};

/// How often an advance is proven anew because another process published meanwhile, before it is left for later.
const ATTEMPTS: usize = 3;
/// What the names of the files end with.
const EXTENSION: &str = ".checkpoint";

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointReplica {
    pub(super) folder: PathBuf,
    signer: Signer,
}

/// A proven advance of a log from its published state. Only [`CheckpointReplica::advance`] makes one, and nothing else
/// is written.
#[derive(Debug)]
struct Advance {
    log: String,
    from: Option<LogState>,
    to: LogState,
}

impl Advance {
    /// Whether the published state was given up.
    fn is_new_generation(&self) -> bool {
        self.from.is_some_and(|from| from.generation < self.to.generation)
    }
}

impl CheckpointReplica {
    /// Opens the folder, which is made when it does not exist.
    pub(crate) fn open(folder: &Path, signer: Signer) -> Result<Self, Error> {
        let replica = Self { folder: folder.to_owned(), signer };
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|e| replica.failed("cannot be made", &e))?;
        Ok(replica)
    }

    fn failed(&self, what: &str, error: &std::io::Error) -> Error {
        Error::CheckpointReplica(format!("`{}` {what}: {error}", self.folder.display()))
    }

    fn file(&self, log: &str) -> PathBuf {
        self.folder.join(format!("{log}{EXTENSION}"))
    }

    /// Reads the checkpoint of a log. A file that no key of this installation signed is refused, not passed over.
    pub(crate) fn read(&self, log: &str) -> Result<Option<LogState>, Error> {
        let path = self.file(log);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("cannot be read", &error)),
        };
        self.signer.signed_state(log, &text).map(Some).ok_or_else(|| {
            Error::CheckpointReplica(format!(
                "`{}` is not a checkpoint that the configured key or one of `former_keys` signed",
                path.display()
            ))
        })
    }

    /// The advance from the published state of a log to what it has become, unless one that goes as far is there already.
    ///
    /// # Errors
    /// [`Error::RolledBack`] when the log does not go on from its published state.
    async fn advance(&self, store: &AuditStore, log: &str, edge: &Edge) -> Result<Option<Advance>, Error> {
        let (published, head) = (self.read(log)?, edge.head());
        // After the file, as everywhere: what was accepted since gives it up.
        let accepted = store.accepted_unscoped(log, &self.signer).await?;
        let generation = accepted.map_or(0, |accepted| accepted.generation);
        let from = published.filter(|published| published.generation >= generation);
        let generation = published.map_or(generation, |published| published.generation.max(generation));
        let advance = || Advance { log: log.to_owned(), from: published, to: LogState { head, generation } };
        let Some(from) = from.map(|published| published.head) else {
            let Some(from) = accepted.map(|accepted| accepted.head) else { return Ok(Some(advance())) };
            let goes_on =
                from.size <= head.size && store.rollback_unscoped(log, &from, Some(&head)).await?.is_none();
            return match goes_on {
                true => Ok(Some(advance())),
                // An edge of a generation that was given up is no news any more, as long as the log itself goes on.
                false => match store.rollback_unscoped(log, &from, None).await? {
                    Some(rollback) => Err(rollback.into()),
                    None => Ok(None),
                },
            };
        };
        // Where another process has published one that goes further, the log has come as far.
        let reached = (from.size <= head.size).then_some(&head);
        match store.rollback_unscoped(log, &from, reached).await? {
            Some(rollback) => Err(rollback.into()),
            None => Ok((from.size < head.size).then(advance)),
        }
    }

    /// Writes the checkpoint that an advance leads to; false when what is published is no longer where it begins.
    fn write(&self, advance: &Advance) -> Result<bool, Error> {
        let Advance { log, from, to } = advance;
        let failed = |error: std::io::Error| self.failed("cannot be written", &error);
        // Several processes may publish checkpoints here: what is read below must still be there when it is replaced.
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.folder.join("lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        let path = self.file(log);
        if self.read(log)? != *from {
            return Ok(false);
        }
        if let Some(LogState { head, generation }) = from {
            // What was given up is put aside for good.
            let suffix = match advance.is_new_generation() {
                true => format!("lost-{}-{generation}", head.size),
                false => "previous".to_owned(),
            };
            let previous = self.folder.join(format!("{log}{EXTENSION}.{suffix}"));
            replace(&previous, &fs::read(&path).map_err(failed)?).map_err(failed)?;
        }
        replace(&path, self.signer.sign_state(log, to).as_bytes()).map_err(failed)?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(true)
    }

    /// Publishes how far a log has come.
    pub(crate) async fn publish(&self, store: &AuditStore, log: &str, edge: &Edge) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let Some(advance) = self.advance(store, log, edge).await? else { return Ok(()) };
            let replica = self.clone();
            let written = tokio::task::spawn_blocking(move || replica.write(&advance));
            // Lost only when the runtime ends, or by a panic, after which nothing is written any more.
            let Ok(written) = written.await else { return Ok(()) };
            if written? {
                return Ok(());
            }
        }
        Err(Error::CheckpointReplica(format!(
            "other processes publish checkpoints of audit log `{log}` all the time"
        )))
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

    /// The logs that were rolled back from what is published here: shorter ones, and forks. Of one that is damaged
    /// neither can be told; it is compared when it is consistent again. One whose tiles do not show it is damaged.
    pub(crate) async fn compare(
        &self,
        store: &AuditStore,
        inspection: &mut Inspection,
    ) -> Result<Vec<Rollback>, Error> {
        let mut found = Vec::new();
        for log in self.logs()? {
            if inspection.damaged.contains_key(&log) {
                continue;
            }
            match self.compare_log(store, &log).await {
                Ok(rollback) => found.extend(rollback),
                Err(error) => inspection.mark_damaged(&log, error.damage()?.1),
            }
        }
        Ok(found)
    }

    /// The same of one log.
    pub(crate) async fn compare_log(&self, store: &AuditStore, log: &str) -> Result<Option<Rollback>, Error> {
        let Some(published) = self.read(log)? else { return Ok(None) };
        // What was accepted since takes its place.
        let accepted = store.accepted_unscoped(log, &self.signer).await?;
        let accepted = accepted.filter(|accepted| published.generation < accepted.generation);
        let from = accepted.unwrap_or(published).head;
        store.rollback_unscoped(log, &from, None).await
    }

    /// Whether all the logs that can be compared are among these.
    pub(crate) fn are_all(&self, found: &[Rollback], inspection: &Inspection) -> Result<bool, Error> {
        let logs = self.logs()?;
        let compared = logs.iter().filter(|log| !inspection.damaged.contains_key(*log)).count();
        Ok(compared == found.len())
    }

    /// Holds a log that was rolled back from its published state.
    pub(super) async fn hold(&self, store: &AuditStore, log: &str) -> Result<(), Error> {
        let why = match self.compare_log(store, log).await {
            Ok(None) => return Ok(()),
            Ok(Some(rollback)) => rollback.why(),
            Err(error) => error.damage()?.1,
        };
        let condition = ReleaseCondition { state: self.read(log)?, tile: None };
        let signer: Arc<dyn CheckpointSigner> = Arc::new(self.signer.clone());
        store.hold_unscoped(log, &why, condition, &signer).await
    }

    /// Holds the logs that were rolled back from their published states, and takes them for damaged.
    pub(crate) async fn hold_all(
        &self,
        store: &AuditStore,
        found: &[Rollback],
        inspection: &mut Inspection,
    ) -> Result<(), Error> {
        for rollback in found {
            self.hold(store, &rollback.log).await?;
            inspection.mark_damaged(&rollback.log, rollback.why());
        }
        Ok(())
    }

    /// Publishes how far logs have come. One that turns out not to go on, or to be damaged, is taken for damaged.
    pub(crate) async fn publish_all(
        &self,
        store: &AuditStore,
        inspection: &mut Inspection,
    ) -> Result<(), Error> {
        let mut found = Vec::new();
        for (log, edge) in &inspection.consistent {
            if let Err(error) = self.publish(store, log, edge).await {
                found.push((log.clone(), error.damage()?.1));
            }
        }
        for (log, why) in found {
            inspection.mark_damaged(&log, why);
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

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::app::inspection::inspect;
    use crate::config::Config;
    use crate::domain::hash;

    pub(in crate::app) fn config(folder: &tempfile::TempDir) -> Config {
        Config { signing_key_file: Some(folder.path().join("keys/audit.pem")), ..Config::default() }
    }

    /// That of so many records, made of their numbers.
    pub(in crate::app) fn edge(records: i64) -> Arc<Edge> {
        let mut edge = Edge::default();
        edge.append((1..=records).map(|n| hash::leaf(n.to_string().as_bytes())));
        Arc::new(edge)
    }

    /// A log of so many such records.
    pub(in crate::app) async fn store(
        db: &pavior_testkit::db::TestDb,
        records: i64,
        signer: &Signer,
    ) -> AuditStore {
        let store = AuditStore::open(db.connect().await).await.unwrap();
        for seq in 1..=records {
            store.grow_by_one("acme", seq, signer).await;
        }
        store
    }

    pub(in crate::app) fn size(replica: &CheckpointReplica, log: &str) -> Option<u64> {
        replica.read(log).unwrap().map(|state| state.head.size)
    }

    /// What is published is one state of a log, whatever is appended beside it.
    #[tokio::test(flavor = "multi_thread")]
    async fn logs_that_grow_are_inspected_and_published_as_they_were_at_one_moment() {
        pavior_testkit::db::both(|db| async move {
            let folder = tempfile::tempdir().unwrap();
            let signer = Signer::load(&config(&folder)).unwrap();
            let replica =
                CheckpointReplica::open(&folder.path().join("checkpoints"), signer.clone()).unwrap();
            let store = AuditStore::open(db.connect().await).await.unwrap();
            let grow = async {
                for seq in 1..=300 {
                    store.grow_by_one("acme", seq, &signer).await;
                }
            };
            let look = async {
                for _ in 0..60 {
                    let mut inspection = inspect(&store, &signer).await.unwrap();
                    assert_eq!(inspection.damaged, BTreeMap::new());
                    replica.publish_all(&store, &mut inspection).await.unwrap();
                    assert_eq!(replica.compare(&store, &mut inspection).await.unwrap(), []);
                    assert_eq!(inspection.damaged, BTreeMap::new());
                }
            };
            tokio::join!(grow, look);
            // What was found before is no news, and does not set back what is published since.
            let mut before = inspect(&store, &signer).await.unwrap();
            store.grow_by_one("acme", 301, &signer).await;
            replica.publish_all(&store, &mut inspect(&store, &signer).await.unwrap()).await.unwrap();
            replica.publish_all(&store, &mut before).await.unwrap();
            assert_eq!(size(&replica, "acme"), Some(301));
        })
        .await;
    }

    /// Whoever wrote what is in the database, the key of this installation signed both.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_published_is_replaced_only_by_what_goes_on_from_it() {
        pavior_testkit::db::both(|db| async move {
            let folder = tempfile::tempdir().unwrap();
            let signer = Signer::load(&config(&folder)).unwrap();
            let replica =
                CheckpointReplica::open(&folder.path().join("checkpoints"), signer.clone()).unwrap();
            let store = store(&db, 7, &signer).await;
            for records in [3, 5, 4, 5] {
                replica.publish(&store, "acme", &edge(records)).await.unwrap();
            }
            assert_eq!(size(&replica, "acme"), Some(5));
            let mut other = Edge::default();
            other.append((1..=7).map(|n| hash::leaf(&[n])));
            for (log, to, found) in
                [("acme", Arc::new(other), (7, 5, true)), ("umbrella", edge(4), (0, 7, false))]
            {
                if log == "umbrella" {
                    let to = LogState { head: edge(7).head(), generation: 0 };
                    replica.write(&Advance { log: log.to_owned(), from: None, to }).unwrap();
                }
                let before = replica.read(log).unwrap();
                let (has, signed, forked) = found;
                match replica.publish(&store, log, &to).await {
                    Err(Error::RolledBack(found)) => {
                        assert_eq!(found, [Rollback { log: log.to_owned(), has, signed, forked }]);
                    }
                    other => panic!("{log}: {other:?}"),
                }
                assert_eq!(replica.read(log).unwrap(), before);
            }
            // What another process published since an advance was proven is not written over.
            let advance = replica.advance(&store, "acme", &edge(6)).await.unwrap().unwrap();
            replica.publish(&store, "acme", &edge(7)).await.unwrap();
            assert!(!replica.write(&advance).unwrap());
            assert_eq!(size(&replica, "acme"), Some(7));
        })
        .await;
    }
}
