//! The publisher of checkpoints: copies them out of the database soon after they are committed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::checkpoint_replica::CheckpointReplica;
use crate::domain::tree::Edge;
use crate::error::{Error, Rollback};
use crate::store::AuditStore;

/// How the publisher waits.
const PACE: Pace = Pace {
    pause: Duration::from_secs(1),
    retry: Duration::from_millis(500),
    longest: Duration::from_secs(30),
};
/// The logs that have grown and are not published yet.
type Unpublished = BTreeMap<String, Arc<Edge>>;

#[derive(Debug, Default)]
struct Shared {
    unpublished: Mutex<Unpublished>,
    failure: Mutex<Option<Failure>>,
}

/// Why checkpoints cannot be published.
#[derive(Debug)]
struct Failure {
    why: String,
    /// How often it was tried since it last worked.
    attempts: u32,
}

/// How long the publisher waits.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Between two writes of the same log, at least.
    pause: Duration,
    /// Until what failed is tried again; twice as long after each failure.
    retry: Duration,
    /// The longest such time.
    longest: Duration,
}

/// Where the publisher is told what has grown. It ends when this is gone.
#[derive(Debug)]
pub(crate) struct PublisherHandle {
    replica: CheckpointReplica,
    shared: Arc<Shared>,
    wake: watch::Sender<()>,
}

/// Writes checkpoints to the replica.
#[derive(Debug)]
pub(crate) struct Publisher {
    replica: CheckpointReplica,
    store: AuditStore,
    shared: Arc<Shared>,
    wake: watch::Receiver<()>,
    pace: Pace,
}

/// Whether the publisher can write.
#[derive(Debug, Clone)]
pub(crate) struct PublisherHealth(Arc<Shared>);

/// A publisher, the handle to it, and its health.
pub(crate) fn publisher(
    replica: CheckpointReplica,
    store: AuditStore,
) -> (PublisherHandle, Publisher, PublisherHealth) {
    let (send, receive) = watch::channel(());
    let shared = Arc::new(Shared::default());
    let handle = PublisherHandle { replica: replica.clone(), shared: shared.clone(), wake: send };
    let publisher = Publisher { replica, store, shared: shared.clone(), wake: receive, pace: PACE };
    (handle, publisher, PublisherHealth(shared))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under the lock can leave it half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PublisherHandle {
    /// Has the newest state of logs published.
    pub(crate) fn publish(&self, edges: &[(String, Arc<Edge>)]) {
        lock(&self.shared.unpublished).extend(edges.iter().cloned());
        self.wake.send_replace(());
    }

    /// Whether a log was rolled back from its checkpoint in the replica.
    pub(crate) async fn compare(&self, store: &AuditStore, log: &str) -> Result<Option<Rollback>, Error> {
        self.replica.compare_log(store, log).await
    }
}

impl PublisherHealth {
    pub(crate) fn check(&self) -> Result<(), String> {
        match &*lock(&self.0.failure) {
            Some(Failure { why, attempts: 1 }) => Err(why.clone()),
            Some(Failure { why, attempts }) => Err(format!("{why}; tried {attempts} times")),
            None => Ok(()),
        }
    }
}

impl Publisher {
    /// Writes until the writer of records is gone, and then once more: nothing that was committed is left out at an
    /// orderly end. What could not be written is tried again by itself, and sooner when there is more to write.
    pub(crate) async fn run(mut self) {
        let Pace { pause, retry, longest } = self.pace;
        let mut next = retry;
        let mut done = true;
        loop {
            let writer_is_gone = match done {
                true => self.wake.changed().await.is_err(),
                false => tokio::time::timeout(next, self.wake.changed())
                    .await
                    .is_ok_and(|changed| changed.is_err()),
            };
            next = if done { retry } else { (next * 2).min(longest) };
            done = self.publish().await;
            if writer_is_gone {
                return;
            }
            let _ = tokio::time::timeout(pause, closed(&mut self.wake.clone())).await;
        }
    }

    /// Whether nothing is left to write.
    async fn publish(&self) -> bool {
        let unpublished = std::mem::take(&mut *lock(&self.shared.unpublished));
        let (mut left, mut why) = (Unpublished::new(), None);
        for (log, edge) in unpublished {
            if let Err(error) = self.publish_log(&log, &edge).await {
                why = Some(error.to_string());
                left.insert(log, edge);
            }
        }
        let mut unpublished = lock(&self.shared.unpublished);
        for (log, edge) in left {
            unpublished.entry(log).or_insert(edge);
        }
        let mut failure = lock(&self.shared.failure);
        let attempts = failure.as_ref().map_or(1, |failure| failure.attempts.saturating_add(1));
        match &why {
            Some(why) if attempts == 1 => tracing::error!(why, "checkpoints cannot be published"),
            Some(why) => tracing::debug!(why, attempts, "checkpoints still cannot be published"),
            None if failure.is_some() => tracing::info!("checkpoints are published again"),
            None => {}
        }
        *failure = why.map(|why| Failure { why, attempts });
        failure.is_none()
    }

    /// Publishes how far a log has come. One that does not go on from the replica is held, and the replica stays.
    async fn publish_log(&self, log: &str, edge: &Edge) -> Result<(), Error> {
        let Err(error) = self.replica.publish(&self.store, log, edge).await else { return Ok(()) };
        error.damage()?;
        self.replica.hold(&self.store, log).await
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

    use super::super::checkpoint_replica::tests::{config, edge, size, store};
    use super::super::signer::Signer;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_could_not_be_published_is_tried_again_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoints");
        let signer = Signer::load(&config(&folder)).unwrap();
        let db = pavior_testkit::db::sqlite();
        let store = store(&db, 5, &signer).await;
        let replica = CheckpointReplica::open(&path, signer).unwrap();
        let (handle, mut publisher, health) = publisher(replica.clone(), store);
        let step = Duration::from_millis(5);
        publisher.pace = Pace { pause: step, retry: step, longest: step * 4 };
        let running = tokio::spawn(publisher.run());
        // A file stands where the folder was.
        fs::remove_dir(&replica.folder).unwrap();
        fs::write(&replica.folder, "").unwrap();
        handle.publish(&[("acme".to_owned(), edge(3))]);
        wait_for("the second failure", LIMIT, async || match health.check() {
            Err(why) if why.contains("cannot be read") && why.contains("; tried ") => Ok(()),
            other => Err(other),
        })
        .await;
        fs::remove_file(&replica.folder).unwrap();
        fs::create_dir(&replica.folder).unwrap();
        // Nothing more is appended.
        wait_for("a publisher that is well", LIMIT, async || health.check()).await;
        assert_eq!(size(&replica, "acme"), Some(3));
        // It waits for what comes, and ends with whoever tells it.
        handle.publish(&[("acme".to_owned(), edge(5))]);
        drop(handle);
        tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
        assert_eq!(size(&replica, "acme"), Some(5));
    }

    #[tokio::test]
    async fn a_publisher_that_cannot_write_ends_at_shutdown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoints");
        let signer = Signer::load(&config(&folder)).unwrap();
        let db = pavior_testkit::db::sqlite();
        let store = store(&db, 3, &signer).await;
        let replica = CheckpointReplica::open(&path, signer).unwrap();
        let (handle, mut publisher, health) = publisher(replica.clone(), store);
        publisher.pace.retry = Duration::from_secs(600);
        let running = tokio::spawn(publisher.run());
        fs::remove_dir(&replica.folder).unwrap();
        handle.publish(&[("acme".to_owned(), edge(3))]);
        wait_for("a failure", LIMIT, async || health.check().err().ok_or("it is well")).await;
        drop(handle);
        tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
    }
}
