//! The durable step engine: takes steps, calls drivers, records what came of it, undoes what failed, recovers what was
//! lost. Every decision is made by the pure state machines in `domain`; everything it knows is in the database.

mod breaker;
mod call;
mod compensation;
mod executor;
mod inputs;
mod lease;
mod observation;
mod outcome;
mod recovery;
mod replacement;
pub mod seal;
mod sink;
mod stop;
mod work;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry::metrics::Meter;
use pavior_driver::Registry;
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config::Config;
use crate::store::{ClaimParams, Db, Purpose};
pub use breaker::Away;
use breaker::Breakers;
use seal::SealingKey;
use stop::Stop;

/// Written with every operation, so that a later engine knows what it has before it.
pub const ENGINE_VERSION: &str = "1";

/// Where a test lets a worker die.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultPoint {
    /// Before a claim is committed.
    BeforeIntent,
    /// After a claim is committed, before the driver is called.
    AfterIntent,
    /// After the driver has answered.
    AfterEffect,
    /// Inside of the transaction that records the answer.
    BeforeCommit,
    /// After that transaction.
    AfterCommit,
}

/// Answers whether the worker dies at this point of this step.
pub type Faults = Arc<dyn Fn(FaultPoint, &str) -> bool + Send + Sync>;

/// The engine of one process. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What the clones of an engine share.
#[doc(hidden)]
pub struct Inner {
    db: Db,
    drivers: Registry,
    key: SealingKey,
    config: Config,
    worker: Arc<str>,
    wake: Notify,
    changes: broadcast::Sender<Uuid>,
    running: Mutex<HashMap<Uuid, Vec<Stop>>>,
    breakers: Breakers,
    slots: Arc<Semaphore>,
    /// When there was no free slot last.
    full: Mutex<Option<Instant>>,
    tasks: TaskTracker,
    faults: Option<Faults>,
    dead: CancellationToken,
    /// Told by whoever runs it that nothing new is to begin.
    stopping: OnceLock<CancellationToken>,
    recovered: CancellationToken,
    zombies: opentelemetry::metrics::Counter<u64>,
}

impl std::ops::Deref for Engine {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that does nothing until [`Engine::run`].
    pub fn new(db: Db, drivers: Registry, key: SealingKey, config: Config, meter: &Meter) -> Self {
        Self::with_faults(db, drivers, key, config, meter, None)
    }

    /// The same with a hook that lets it die; for tests.
    pub fn with_faults(
        mut db: Db,
        drivers: Registry,
        key: SealingKey,
        config: Config,
        meter: &Meter,
        faults: Option<Faults>,
    ) -> Self {
        let worker: Arc<str> = db.ids.uuid().to_string().into();
        if let Some(faults) = faults.clone() {
            let hook = move |step: &str| faults(FaultPoint::BeforeCommit, step);
            db.before_commit = Some(crate::store::BeforeCommit(Arc::new(hook)));
        }
        let zombies = meter
            .u64_counter("pavior.provisioning.step.fenced")
            .with_description("Completions refused because the claim was lost")
            .build();
        let slots = Arc::new(Semaphore::new(config.max_running.max(1)));
        let inner = Inner {
            db,
            drivers,
            key,
            config,
            worker,
            wake: Notify::new(),
            changes: broadcast::channel(1024).0,
            running: Mutex::default(),
            breakers: Breakers::new(meter),
            slots,
            full: Mutex::default(),
            tasks: TaskTracker::new(),
            faults,
            dead: CancellationToken::new(),
            stopping: OnceLock::new(),
            recovered: CancellationToken::new(),
            zombies,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Looks for work at once.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Tells watchers that something happened in an operation.
    pub fn changed(&self, operation: Uuid) {
        // Nobody may be listening.
        let _ = self.changes.send(operation);
    }

    /// Ids of operations in which something happened in this process. A hint: reading the database is the truth.
    pub fn changes(&self) -> broadcast::Receiver<Uuid> {
        self.changes.subscribe()
    }

    /// Waits until something is heard of an operation, or this moment has come. What was missed may have been of it.
    pub(crate) async fn heard_of(changes: &mut broadcast::Receiver<Uuid>, operation: Uuid, until: Instant) {
        let heard = async { while changes.recv().await.is_ok_and(|id| id != operation) {} };
        // Both mean that it is time to look.
        drop(tokio::time::timeout_at(until, heard).await);
    }

    /// The drivers.
    pub fn drivers(&self) -> &Registry {
        &self.drivers
    }

    /// How long there have been free slots, as far as is known; nothing while there are none.
    pub fn free_for(&self) -> Option<Duration> {
        if self.slots.available_permits() == 0 {
            return None;
        }
        let full = *self.full.lock().unwrap_or_else(PoisonError::into_inner);
        Some(full.map_or(Duration::MAX, |full| full.elapsed()))
    }

    fn is_full(&self) {
        *self.full.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// True once a test has let the worker die.
    pub fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    /// Whether nothing new is to begin.
    fn is_stopping(&self) -> bool {
        self.stopping.get().is_some_and(CancellationToken::is_cancelled)
    }

    /// Waits until what a former process left under way has been looked at for the first time.
    pub async fn recovered(&self) {
        self.recovered.cancelled().await;
    }

    /// Stops what the calls of this process do for an operation; what they undo goes on. Other processes hear of it
    /// with their next heartbeat.
    pub fn stop_calls(&self, operation: Uuid) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(&operation).into_iter().flatten().for_each(Stop::not_wanted);
    }

    fn register(&self, operation: Uuid, purpose: Purpose, since: Instant) -> Stop {
        let stop = Stop::new(purpose, since + Duration::from_millis(self.config.lease_ms));
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let stops = running.entry(operation).or_default();
        stops.retain(|stop| !stop.token().is_cancelled());
        stops.push(stop.clone());
        stop
    }

    fn unregister(&self, operation: Uuid, stop: &Stop) {
        // A cancelled token is one that is of no use any more.
        stop.time_is_up();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stops) = running.get_mut(&operation) {
            stops.retain(|stop| !stop.token().is_cancelled());
            if stops.is_empty() {
                running.remove(&operation);
            }
        }
    }

    fn dies(&self, point: FaultPoint, step: &str) -> bool {
        let dies = self.faults.as_ref().is_some_and(|faults| faults(point, step));
        if dies {
            self.dead.cancel();
        }
        dies
    }

    fn claim_params(&self, limit: usize) -> ClaimParams {
        let config = &self.config;
        ClaimParams {
            worker: self.worker.clone(),
            lease_micros: micros(config.lease_ms),
            limit,
            per_operation: config.max_running_per_operation,
            per_organization: config.max_running_per_organization,
            away: self.breakers.ids(),
        }
    }

    /// The pause after an attempt: it grows, and is spread so that not everybody comes back at once.
    fn pause(&self, attempt: u32) -> Duration {
        let config = &self.config;
        // The random part of an id is as good a die as any, and tests seed it.
        let random = u16::from_be_bytes({
            let bytes = self.db.ids.uuid().into_bytes();
            [bytes[14], bytes[15]]
        });
        let jitter = f64::from(random) / f64::from(u16::MAX);
        let attempt = attempt.max(1);
        let pause =
            crate::domain::machine::backoff(config.backoff_ms, config.max_backoff_ms, attempt, jitter);
        Duration::from_millis(pause)
    }

    /// Looks for work once the pause is over. Longer ones are left to the poll.
    fn wake_after(&self, pause: Duration) {
        if pause > Duration::from_millis(self.config.max_backoff_ms) {
            return;
        }
        let engine = self.clone();
        // Not one of the tasks that a shutdown waits for.
        tokio::spawn(async move {
            tokio::select! {
                () = engine.dead.cancelled() => {}
                () = tokio::time::sleep(pause) => engine.wake(),
            }
        });
    }
}

/// The value of `artifact` in expressions for an artifact of a run: the one of this name, the first when it is empty.
pub fn artifact_of_run(run: &crate::domain::run::Run, name: &str) -> Option<serde_json::Value> {
    let outputs = serde_json::json!({ "run": run.name, "commit": run.commit, "artifacts": run.artifacts });
    inputs::from_run(&outputs, name)
}

fn micros(millis: u64) -> i64 {
    i64::try_from(millis.saturating_mul(1_000)).unwrap_or(i64::MAX)
}
