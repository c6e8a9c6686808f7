//! The keeper of checkpoints outside of the database: writes soon after they are committed how far logs have come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::second_place::SecondPlace;
use crate::domain::tree::Edge;
use crate::error::{Error, SetBack};
use crate::store::AuditStore;

/// How the keeper waits.
const PACE: Pace = Pace {
    pause: Duration::from_secs(1),
    retry: Duration::from_millis(500),
    longest: Duration::from_secs(30),
};
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
    store: AuditStore,
    shared: Arc<Shared>,
    wake: watch::Receiver<()>,
    pace: Pace,
}

/// Whether the keeper can write.
#[derive(Debug, Clone)]
pub(crate) struct KeeperHealth(Arc<Shared>);

/// A keeper and the handle to it.
pub(crate) fn keeper(place: SecondPlace, store: AuditStore) -> (Remember, Keeper, KeeperHealth) {
    let (send, receive) = watch::channel(());
    let shared = Arc::new(Shared::default());
    let remember = Remember { place: place.clone(), shared: shared.clone(), wake: send };
    let keeper = Keeper { place, store, shared: shared.clone(), wake: receive, pace: PACE };
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
        let (mut left, mut why) = (Grown::new(), None);
        for (log, edge) in grown {
            if let Err(error) = self.keep_log(&log, &edge).await {
                why = Some(error.to_string());
                left.insert(log, edge);
            }
        }
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

impl Keeper {
    /// Keeps how far a log has come. One that does not go on from what is kept is held, and what is kept stays.
    async fn keep_log(&self, log: &str, edge: &Edge) -> Result<(), Error> {
        let Err(error) = self.place.keep(&self.store, log, edge).await else { return Ok(()) };
        error.damage()?;
        self.place.hold(&self.store, log).await
    }
}

/// Returns when there is no sender any more.
async fn closed(wake: &mut watch::Receiver<()>) {
    while wake.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pavior_testkit::wait_for;

    use super::super::second_place::tests::{config, edge, size, store};
    use super::super::signer::Signer;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_could_not_be_kept_is_tried_again_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("checkpoints");
        let signer = Signer::load(&config(&folder)).unwrap();
        let db = pavior_testkit::db::sqlite();
        let store = store(&db, 5, &signer).await;
        let place = SecondPlace::open(&place, signer).unwrap();
        let (remember, mut keeper, health) = keeper(place.clone(), store);
        let step = Duration::from_millis(5);
        keeper.pace = Pace { pause: step, retry: step, longest: step * 4 };
        let running = tokio::spawn(keeper.run());
        // A file stands where the folder was.
        fs::remove_dir(&place.folder).unwrap();
        fs::write(&place.folder, "").unwrap();
        remember.grown(&[("acme".to_owned(), edge(3))]);
        wait_for("the second failure", LIMIT, async || match health.check() {
            Err(why) if why.contains("cannot be read") && why.contains("; tried ") => Ok(()),
            other => Err(other),
        })
        .await;
        fs::remove_file(&place.folder).unwrap();
        fs::create_dir(&place.folder).unwrap();
        // Nothing more is appended.
        wait_for("a keeper that is well", LIMIT, async || health.check()).await;
        assert_eq!(size(&place, "acme"), Some(3));
        // It waits for what comes, and ends with whoever tells it.
        remember.grown(&[("acme".to_owned(), edge(5))]);
        drop(remember);
        tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
        assert_eq!(size(&place, "acme"), Some(5));
    }

    #[tokio::test]
    async fn a_keeper_that_cannot_write_ends_at_shutdown() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("checkpoints");
        let signer = Signer::load(&config(&folder)).unwrap();
        let db = pavior_testkit::db::sqlite();
        let store = store(&db, 3, &signer).await;
        let place = SecondPlace::open(&place, signer).unwrap();
        let (remember, mut keeper, health) = keeper(place.clone(), store);
        keeper.pace.retry = Duration::from_secs(600);
        let running = tokio::spawn(keeper.run());
        fs::remove_dir(&place.folder).unwrap();
        remember.grown(&[("acme".to_owned(), edge(3))]);
        wait_for("a failure", LIMIT, async || health.check().err().ok_or("it is well")).await;
        drop(remember);
        tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
    }
}
