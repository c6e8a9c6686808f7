//! Old records go.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::{FENCES, KEYS, Ledger};
use crate::files;

/// How often records are looked through for old ones.
const SWEEP: Duration = Duration::from_secs(3600);

impl Ledger {
    /// Sweeps, once an hour and at the start: a part of every driver's `reconcile`.
    pub(crate) async fn sweep_old(self: &Arc<Self>) {
        {
            let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
            if swept.is_some_and(|at| at.elapsed() < SWEEP) {
                return;
            }
            *swept = Some(Instant::now());
        }
        let ledger = Arc::clone(self);
        let swept = tokio::task::spawn_blocking(move || ledger.sweep()).await;
        match swept.map_err(std::io::Error::other).and_then(|swept| swept) {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "old records of drivers are removed"),
            Err(error) => tracing::warn!(%error, "old records of drivers cannot be removed"),
        }
    }

    /// Removes what only a late caller would need, once it is older than any caller may be: fences of resources of
    /// which nothing is left, and answers of actions. Gives the number of files removed.
    fn sweep(&self) -> std::io::Result<usize> {
        let mut needed: HashSet<PathBuf> = HashSet::new();
        for entry in self.read_all()? {
            needed.insert(self.path(FENCES, &entry.resource));
            needed.extend(entry.keys.iter().map(|key| self.path(KEYS, key)));
        }
        let now = self.now()?;
        let mut removed = 0;
        for record in self.records(FENCES)?.into_iter().chain(self.records(KEYS)?) {
            if needed.contains(&record) {
                continue;
            }
            let age = now.duration_since(std::fs::metadata(&record)?.modified()?).unwrap_or_default();
            if age > self.keep {
                self.remove(&record)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The time by the file system's own clock, which also dates the records.
    pub(super) fn now(&self) -> std::io::Result<SystemTime> {
        let clock = self.root.join("clock");
        files::write(&clock, b"")?;
        std::fs::metadata(&clock)?.modified()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::ENTRIES;
    use super::super::tests::{asked, call, ledger};
    use super::*;

    #[tokio::test]
    async fn only_what_is_old_and_of_nobody_is_swept() {
        let (ledger, _base) = ledger(Duration::from_secs(3600));
        let inputs = Value::Null;
        for (resource, key) in [("living", "make"), ("gone", "made")] {
            drop(ledger.lock(&call(resource, key)).await.unwrap());
            let mut intent = ledger.intend(&call(resource, key), "t", resource, &asked()).unwrap();
            ledger.complete(&mut intent).unwrap();
        }
        ledger.record_key(&call("living", "act"), "living", &inputs, Some(Value::Null)).unwrap();
        let gone = ledger.owner("gone").unwrap().unwrap();
        ledger.forget(&gone).unwrap();
        let count = |part| ledger.records(part).unwrap().len();
        assert_eq!((count(FENCES), count(KEYS), count(ENTRIES)), (2, 2, 1));
        // Young enough for a late caller.
        assert_eq!(ledger.sweep().unwrap(), 0);
        let old = std::time::SystemTime::UNIX_EPOCH;
        for record in ledger.records(FENCES).unwrap().into_iter().chain(ledger.records(KEYS).unwrap()) {
            std::fs::File::open(record).unwrap().set_modified(old).unwrap();
        }
        assert_eq!(ledger.sweep().unwrap(), 2);
        assert_eq!((count(FENCES), count(KEYS), count(ENTRIES)), (1, 1, 1));
        assert!(ledger.replay(&call("living", "make"), &inputs).unwrap().is_some());
    }
}
