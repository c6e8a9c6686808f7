//! The last checkpoint of every log outside of the database: files in a folder that no backup of the database holds.
//!
//! A database that was set back to an older copy is whole in itself: it verifies, and the records since are gone. Only
//! what was signed before and is kept elsewhere tells. So the newest checkpoint of each log is written here soon after
//! it is committed, and compared at start. A kept one gives way only to one that was proven to go on from it, or from the
//! state that an operator accepted since: each says how often a loss had been accepted when it was kept, so that a folder
//! of another host, which `pavior restore` never saw, learns of it from the database.

use super::damage::Inspection;
use super::signer::Signer;
use crate::domain::known::{Kept, Mark};
use crate::domain::tree::Edge;
use crate::error::{Error, SetBack};
use crate::store::{AuditStore, Demand, Sign};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How often a step is proven anew because another process took one meanwhile, before it is left for later.
const STEPS: usize = 3;
/// What the names of the files end with.
const EXTENSION: &str = ".checkpoint";

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct SecondPlace {
    pub(super) folder: PathBuf,
    signer: Signer,
}

/// A proven step of a log from what is kept of it. Only [`SecondPlace::step`] makes one, and nothing else is written.
#[derive(Debug)]
struct Step {
    log: String,
    kept: Option<Kept>,
    to: Kept,
}

impl Step {
    /// Whether what is kept was given up.
    fn is_anew(&self) -> bool {
        self.kept.is_some_and(|kept| kept.generation < self.to.generation)
    }
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
    pub(crate) fn read(&self, log: &str) -> Result<Option<Kept>, Error> {
        let path = self.file(log);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("cannot be read", &error)),
        };
        self.signer.kept(log, &text).map(Some).ok_or_else(|| {
            Error::SecondPlace(format!(
                "`{}` is not a checkpoint that the configured key or one of `former_keys` signed",
                path.display()
            ))
        })
    }

    /// The step from what is kept of a log to what it has become, unless one that goes as far is there already.
    ///
    /// # Errors
    /// [`Error::SetBack`] when the log does not go on from what is kept.
    async fn step(&self, store: &AuditStore, log: &str, edge: &Edge) -> Result<Option<Step>, Error> {
        let (kept, mark) = (self.read(log)?, edge.mark());
        // After the file, as everywhere: what was accepted since gives it up.
        let accepted = store.accepted_unscoped(log, &self.signer).await?;
        let generation = accepted.map_or(0, |accepted| accepted.generation);
        let from = kept.filter(|kept| kept.generation >= generation).map(|kept| kept.mark);
        let generation = kept.map_or(generation, |kept| kept.generation.max(generation));
        let step = || Step { log: log.to_owned(), kept, to: Kept { mark, generation } };
        let Some(from) = from else {
            let Some(from) = accepted.map(|accepted| accepted.mark) else { return Ok(Some(step())) };
            let goes_on =
                from.size <= mark.size && store.set_back_unscoped(log, &from, Some(&mark)).await?.is_none();
            return match goes_on {
                true => Ok(Some(step())),
                // An edge of the line that was given up is no news any more, as long as the log itself goes on.
                false => match store.set_back_unscoped(log, &from, None).await? {
                    Some(set_back) => Err(Error::SetBack(vec![set_back])),
                    None => Ok(None),
                },
            };
        };
        // Where another process has kept one that goes further, the log has come as far.
        let reached = (from.size <= mark.size).then_some(&mark);
        match store.set_back_unscoped(log, &from, reached).await? {
            Some(set_back) => Err(Error::SetBack(vec![set_back])),
            None => Ok((from.size < mark.size).then(step)),
        }
    }

    /// Keeps the checkpoint that a step leads to; false when what is kept is no longer where it begins.
    fn write(&self, step: &Step) -> Result<bool, Error> {
        let Step { log, kept, to } = step;
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
        let path = self.file(log);
        if self.read(log)? != *kept {
            return Ok(false);
        }
        if let Some(Kept { mark: Mark { size, .. }, generation }) = kept {
            // What was given up is put aside for good.
            let suffix = match step.is_anew() {
                true => format!("lost-{size}-{generation}"),
                false => "previous".to_owned(),
            };
            let previous = self.folder.join(format!("{log}{EXTENSION}.{suffix}"));
            replace(&previous, &fs::read(&path).map_err(failed)?).map_err(failed)?;
        }
        replace(&path, self.signer.sign_kept(log, to).as_bytes()).map_err(failed)?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(true)
    }

    /// Keeps how far a log has come.
    pub(crate) async fn keep(&self, store: &AuditStore, log: &str, edge: &Edge) -> Result<(), Error> {
        for _ in 0..STEPS {
            let Some(step) = self.step(store, log, edge).await? else { return Ok(()) };
            let place = self.clone();
            let written = tokio::task::spawn_blocking(move || place.write(&step));
            // Lost only when the runtime ends, or by a panic, after which nothing is written any more.
            let Ok(written) = written.await else { return Ok(()) };
            if written? {
                return Ok(());
            }
        }
        Err(Error::SecondPlace(format!("other processes keep checkpoints of audit log `{log}` all the time")))
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
    /// is damaged neither can be told; it is compared when it is whole again. One whose tiles do not show it is damaged.
    pub(crate) async fn compare(
        &self,
        store: &AuditStore,
        inspection: &mut Inspection,
    ) -> Result<Vec<SetBack>, Error> {
        let mut found = Vec::new();
        for log in self.logs()? {
            if inspection.damaged.contains_key(&log) {
                continue;
            }
            match self.compare_log(store, &log).await {
                Ok(set_back) => found.extend(set_back),
                Err(error) => inspection.condemn(&log, error.damage()?.1),
            }
        }
        Ok(found)
    }

    /// The same of one log.
    pub(crate) async fn compare_log(&self, store: &AuditStore, log: &str) -> Result<Option<SetBack>, Error> {
        let Some(kept) = self.read(log)? else { return Ok(None) };
        // What was accepted since takes its place.
        let accepted = store.accepted_unscoped(log, &self.signer).await?;
        let accepted = accepted.filter(|accepted| kept.generation < accepted.generation);
        let from = accepted.map_or(kept.mark, |accepted| accepted.mark);
        store.set_back_unscoped(log, &from, None).await
    }

    /// Whether all the logs that can be compared are among these.
    pub(crate) fn are_all(&self, found: &[SetBack], inspection: &Inspection) -> Result<bool, Error> {
        let logs = self.logs()?;
        let compared = logs.iter().filter(|log| !inspection.damaged.contains_key(*log)).count();
        Ok(compared == found.len())
    }

    /// Holds a log that does not go on from what is kept of it.
    pub(super) async fn hold(&self, store: &AuditStore, log: &str) -> Result<(), Error> {
        let why = match self.compare_log(store, log).await {
            Ok(None) => return Ok(()),
            Ok(Some(set_back)) => set_back.why(),
            Err(error) => error.damage()?.1,
        };
        let demand = match self.read(log)? {
            Some(Kept { mark, generation }) => Demand { mark: Some(mark), generation, tile: None },
            None => Demand::default(),
        };
        let signer: Arc<dyn Sign> = Arc::new(self.signer.clone());
        store.hold_unscoped(log, &why, demand, &signer).await
    }

    /// Holds the logs that do not go on from what is kept of them, and takes them for damaged.
    pub(crate) async fn hold_all(
        &self,
        store: &AuditStore,
        found: &[SetBack],
        inspection: &mut Inspection,
    ) -> Result<(), Error> {
        for set_back in found {
            self.hold(store, &set_back.log).await?;
            inspection.condemn(&set_back.log, set_back.why());
        }
        Ok(())
    }

    /// Keeps how far logs have come. One that turns out not to go on, or to be damaged, is taken for damaged.
    pub(crate) async fn keep_all(
        &self,
        store: &AuditStore,
        inspection: &mut Inspection,
    ) -> Result<(), Error> {
        let mut found = Vec::new();
        for (log, edge) in &inspection.sound {
            if let Err(error) = self.keep(store, log, edge).await {
                found.push((log.clone(), error.damage()?.1));
            }
        }
        for (log, why) in found {
            inspection.condemn(&log, why);
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
    use crate::app::damage;
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

    pub(in crate::app) fn size(place: &SecondPlace, log: &str) -> Option<u64> {
        place.read(log).unwrap().map(|kept| kept.mark.size)
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
                    let mut inspection = damage::inspect(&store, &signer).await.unwrap();
                    assert_eq!(inspection.damaged, BTreeMap::new());
                    place.keep_all(&store, &mut inspection).await.unwrap();
                    assert_eq!(place.compare(&store, &mut inspection).await.unwrap(), []);
                    assert_eq!(inspection.damaged, BTreeMap::new());
                }
            };
            tokio::join!(grow, look);
            // What was found before is no news, and does not set back what is kept since.
            let mut before = damage::inspect(&store, &signer).await.unwrap();
            store.grow_by_one("acme", 301, &signer).await;
            place.keep_all(&store, &mut damage::inspect(&store, &signer).await.unwrap()).await.unwrap();
            place.keep_all(&store, &mut before).await.unwrap();
            assert_eq!(size(&place, "acme"), Some(301));
        })
        .await;
    }

    /// Whoever wrote what is in the database, the key of this installation signed both.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_kept_gives_way_only_to_what_goes_on_from_it() {
        pavior_testkit::db::both(|db| async move {
            let folder = tempfile::tempdir().unwrap();
            let signer = Signer::load(&config(&folder)).unwrap();
            let place = SecondPlace::open(&folder.path().join("checkpoints"), signer.clone()).unwrap();
            let store = store(&db, 7, &signer).await;
            for records in [3, 5, 4, 5] {
                place.keep(&store, "acme", &edge(records)).await.unwrap();
            }
            assert_eq!(size(&place, "acme"), Some(5));
            let mut other = Edge::default();
            other.append((1..=7).map(|n| hash::leaf(&[n])));
            for (log, to, found) in
                [("acme", Arc::new(other), (7, 5, true)), ("umbrella", edge(4), (0, 7, false))]
            {
                if log == "umbrella" {
                    place
                        .write(&Step {
                            log: log.to_owned(),
                            kept: None,
                            to: Kept { mark: edge(7).mark(), generation: 0 },
                        })
                        .unwrap();
                }
                let before = place.read(log).unwrap();
                let (has, signed, forked) = found;
                match place.keep(&store, log, &to).await {
                    Err(Error::SetBack(found)) => {
                        assert_eq!(found, [SetBack { log: log.to_owned(), has, signed, forked }]);
                    }
                    other => panic!("{log}: {other:?}"),
                }
                assert_eq!(place.read(log).unwrap(), before);
            }
            // What another process kept since a step was proven is not written over.
            let step = place.step(&store, "acme", &edge(6)).await.unwrap().unwrap();
            place.keep(&store, "acme", &edge(7)).await.unwrap();
            assert!(!place.write(&step).unwrap());
            assert_eq!(size(&place, "acme"), Some(7));
        })
        .await;
    }
}
