//! Runs listeners and tasks, and ends them in phases: NOT_SERVING, stop accepting, let calls end, stop tasks, close.
//! Flushing telemetry is left to the caller of [`Supervisor::run`], as the last phase.

use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use pavior_rpc::Health;
use pavior_rpc::server::{ServeOptions, Stack, serve_with};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::{HealthCheck, Readiness, Task};

/// Where the process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Listeners and tasks run.
    Serving,
    /// Health says NOT_SERVING; calls are still taken, until load balancers have noticed.
    NotServing,
    /// No new connections; calls that began may end.
    Draining,
    /// Tasks are asked to end.
    StoppingTasks,
    /// Databases are closed.
    Closing,
    /// All has ended.
    Stopped,
}

/// Times of the shutdown.
#[derive(Debug, Clone)]
pub struct SupervisorOptions {
    /// From NOT_SERVING until no more connections are accepted.
    pub notice: Duration,
    /// For tasks to end, and then for what is closed.
    pub task_grace: Duration,
    /// From the end of the notice until calls have ended, or been ended.
    pub grace: Duration,
    /// Between health checks.
    pub check_interval: Duration,
}

impl Default for SupervisorOptions {
    fn default() -> Self {
        Self {
            notice: Duration::from_secs(3),
            task_grace: Duration::from_secs(10),
            grace: Duration::from_secs(20),
            check_interval: Duration::from_secs(1),
        }
    }
}

/// Why a process ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A task ended with an error.
    #[error("task `{name}` failed: {reason}")]
    Task {
        /// Its name.
        name: &'static str,
        /// The whole chain of errors.
        reason: String,
    },
    /// A listener ended by itself.
    #[error("listener `{0}` ended")]
    Listener(&'static str),
    /// A second signal came during shutdown.
    #[error("stopped at once by a second signal")]
    SecondSignal,
}

/// For a listener to end calls after their grace.
const LISTENER_MARGIN: Duration = Duration::from_millis(700);

type Serve = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send>;

/// What runs in a process.
pub struct Supervisor {
    options: SupervisorOptions,
    health: Vec<Health>,
    readiness: Readiness,
    checks: Vec<HealthCheck>,
    listeners: Vec<(&'static str, Serve)>,
    beside: Vec<(&'static str, Serve)>,
    tasks: Vec<Task>,
    closing: Vec<Task>,
    phase: watch::Sender<Phase>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("phase", &*self.phase.borrow()).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// Nothing runs before [`Supervisor::run`].
    pub fn new(options: SupervisorOptions) -> Self {
        Self {
            options,
            health: Vec::new(),
            readiness: Readiness::default(),
            checks: Vec::new(),
            listeners: Vec::new(),
            beside: Vec::new(),
            tasks: Vec::new(),
            closing: Vec::new(),
            phase: watch::Sender::new(Phase::Serving),
        }
    }

    /// Adds what is told of the process, and at its doors.
    #[must_use]
    pub fn health(mut self, health: impl IntoIterator<Item = Health>) -> Self {
        self.health.extend(health);
        self
    }

    /// What the checks say, for the admin endpoint.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Where the process stands.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Adds checks.
    #[must_use]
    pub fn checks(mut self, checks: impl IntoIterator<Item = HealthCheck>) -> Self {
        self.checks.extend(checks);
        self
    }

    /// Adds background work.
    #[must_use]
    pub fn tasks(mut self, tasks: impl IntoIterator<Item = Task>) -> Self {
        self.tasks.extend(tasks);
        self
    }

    /// Adds what is closed when tasks have ended.
    #[must_use]
    pub fn closing(mut self, closing: impl IntoIterator<Item = Task>) -> Self {
        self.closing.extend(closing);
        self
    }

    /// Serves a stack on a bound listener.
    #[must_use]
    pub fn listener(
        self,
        name: &'static str,
        listener: TcpListener,
        stack: Stack,
        options: ServeOptions,
    ) -> Self {
        self.server(name, move |stop| async move {
            serve_with(listener, stack, options, stop).await;
            Ok(())
        })
    }

    /// Adds any other server: when its token is cancelled, it stops accepting and returns when its calls have ended.
    #[must_use]
    pub fn server<F, Fut>(mut self, name: &'static str, serve: F) -> Self
    where
        F: FnOnce(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.listeners.push((name, Box::new(move |stop| Box::pin(serve(stop)))));
        self
    }

    /// Serves metrics and readiness until everything else has ended.
    #[must_use]
    pub fn admin(mut self, listener: TcpListener, registry: prometheus::Registry) -> Self {
        let readiness = self.readiness.clone();
        let serve = move |stop| crate::admin::serve(listener, registry, readiness, stop).boxed();
        self.beside.push(("admin", Box::new(serve)));
        self
    }

    /// Runs until a signal comes, or a task fails; then shuts down in phases. A second signal ends it at once.
    pub async fn run(self, mut signals: mpsc::Receiver<&'static str>) -> Result<(), SupervisorError> {
        let mut running = self.start();
        let failure = running.until_asked(&mut signals).await;
        if let Some(failure) = &failure {
            tracing::error!(error = %failure, "shutting down");
        }
        tokio::select! {
            failed = running.shut_down() => failure.or(failed).map_or(Ok(()), Err),
            Some(_) = signals.recv() => Err(SupervisorError::SecondSignal),
        }
    }

    fn start(self) -> Running {
        let Self { options, health, readiness, checks, listeners, beside, tasks, closing, phase } = self;
        let stop = Stop::default();
        let mut serving = JoinSet::new();
        for (name, serve) in listeners {
            spawn(&mut serving, Kind::Listener, name, serve(stop.accept.clone()));
        }
        let mut working = JoinSet::new();
        let mut supporting = JoinSet::new();
        for task in tasks {
            let (set, stop) = match task.supports {
                false => (&mut working, &stop.tasks),
                true => (&mut supporting, &stop.supports),
            };
            spawn(set, Kind::Task, task.name, (task.run)(stop.clone()));
        }
        let mut last = JoinSet::new();
        for (name, serve) in beside {
            spawn(&mut last, Kind::Listener, name, serve(stop.beside.clone()));
        }
        let (watching, watched, told) = (stop.health.clone(), readiness.clone(), health.clone());
        let checker = AbortOnDropHandle::new(tokio::spawn(async move {
            watched.run(&checks, &told, options.check_interval, &watching).await;
        }));
        Running {
            options,
            health,
            readiness,
            phase,
            stop,
            serving,
            working,
            supporting,
            closing,
            last,
            checker,
        }
    }
}

/// What runs, and the means to end it. Dropping it ends everything at once.
struct Running {
    options: SupervisorOptions,
    health: Vec<Health>,
    readiness: Readiness,
    phase: watch::Sender<Phase>,
    stop: Stop,
    serving: JoinSet<Ended>,
    working: JoinSet<Ended>,
    supporting: JoinSet<Ended>,
    closing: Vec<Task>,
    last: JoinSet<Ended>,
    checker: AbortOnDropHandle<()>,
}

impl Running {
    /// Waits for a signal (nothing) or a failure.
    async fn until_asked(&mut self, signals: &mut mpsc::Receiver<&'static str>) -> Option<SupervisorError> {
        loop {
            tokio::select! {
                signal = signals.recv() => {
                    tracing::info!(signal = signal.unwrap_or("none"), "shutting down");
                    return None;
                }
                Some(ended) = self.serving.join_next() => return Some(early(ended)),
                Some(ended) = self.last.join_next() => return Some(early(ended)),
                Some(ended) = self.working.join_next() => if let Some(failed) = failed(ended) {
                    return Some(failed);
                },
                Some(ended) = self.supporting.join_next() => if let Some(failed) = failed(ended) {
                    return Some(failed);
                },
            }
        }
    }

    /// The phases. Returns the first failure on the way.
    async fn shut_down(mut self) -> Option<SupervisorError> {
        self.stop.health.cancel();
        self.readiness.stop();
        if (&mut self.checker).await.is_err() {
            tracing::error!("the health checks panicked");
        }
        for health in &self.health {
            health.set(false).await;
        }
        self.phase.send_replace(Phase::NotServing);
        tokio::time::sleep(self.options.notice).await;
        self.phase.send_replace(Phase::Draining);
        self.stop.accept.cancel();
        // Listeners end calls by themselves when their time is over; whatever does not is ended here.
        let served = async { while self.serving.join_next().await.is_some() {} };
        if tokio::time::timeout(self.options.grace + LISTENER_MARGIN, served).await.is_err() {
            tracing::warn!("listeners were cut off: the grace period is over");
            self.serving.abort_all();
        }
        self.phase.send_replace(Phase::StoppingTasks);
        self.stop.tasks.cancel();
        let working = std::mem::take(&mut self.working);
        let mut failed = end(working, self.options.task_grace).await;
        self.stop.supports.cancel();
        let supporting = std::mem::take(&mut self.supporting);
        failed = failed.or(end(supporting, self.options.task_grace).await);
        self.phase.send_replace(Phase::Closing);
        let mut closing = JoinSet::new();
        for task in std::mem::take(&mut self.closing) {
            spawn(&mut closing, Kind::Task, task.name, (task.run)(self.stop.tasks.clone()));
        }
        failed = failed.or(end(closing, self.options.task_grace).await);
        self.stop.beside.cancel();
        while self.last.join_next().await.is_some() {}
        self.phase.send_replace(Phase::Stopped);
        failed
    }
}

/// Work that is done is no reason to stop.
fn failed(ended: Result<Ended, tokio::task::JoinError>) -> Option<SupervisorError> {
    match ended {
        Ok(Ended { kind: Kind::Task, result: Ok(()), .. }) => None,
        ended => Some(early(ended)),
    }
}

/// Waits for tasks to end, and cuts them off when the grace period is over.
async fn end(mut working: JoinSet<Ended>, grace: Duration) -> Option<SupervisorError> {
    let ended = async {
        let mut failed = None;
        while let Some(ended) = working.join_next().await {
            if !matches!(&ended, Ok(Ended { result: Ok(()), .. })) {
                let err = early(ended);
                tracing::error!(error = %err, "a task did not end well");
                failed = failed.or(Some(err));
            }
        }
        failed
    };
    tokio::time::timeout(grace, ended).await.unwrap_or_else(|_| {
        tracing::warn!("tasks were cut off: the grace period is over");
        None
    })
}

#[derive(Default)]
struct Stop {
    health: CancellationToken,
    accept: CancellationToken,
    tasks: CancellationToken,
    supports: CancellationToken,
    beside: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Listener,
    Task,
}

struct Ended {
    kind: Kind,
    name: &'static str,
    result: anyhow::Result<()>,
}

fn spawn(
    set: &mut JoinSet<Ended>,
    kind: Kind,
    name: &'static str,
    work: BoxFuture<'static, anyhow::Result<()>>,
) {
    set.spawn(async move {
        // A panic is an error of this task, with its name.
        let result = std::panic::AssertUnwindSafe(work).catch_unwind().await;
        let result = result.unwrap_or_else(|_| Err(anyhow::anyhow!("panic")));
        Ended { kind, name, result }
    });
}

fn early(ended: Result<Ended, tokio::task::JoinError>) -> SupervisorError {
    match ended {
        Ok(Ended { kind: Kind::Listener, name, result: Ok(()) }) => SupervisorError::Listener(name),
        Ok(Ended { name, result, .. }) => {
            let reason = result.err().map(|err| format!("{err:#}")).unwrap_or_default();
            SupervisorError::Task { name, reason }
        }
        Err(err) => SupervisorError::Task { name: "unknown", reason: err.to_string() },
    }
}

/// SIGTERM and SIGINT, as long as the process lives.
pub fn os_signals() -> std::io::Result<mpsc::Receiver<&'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                Some(()) = terminate.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
                else => return,
            };
            if sender.send(name).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
