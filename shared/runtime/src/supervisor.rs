//! Runs listeners and tasks, and ends them in phases: NOT_SERVING, stop accepting, let calls end, stop tasks.
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
    /// All has ended.
    Stopped,
}

/// Times of the shutdown.
#[derive(Debug, Clone)]
pub struct SupervisorOptions {
    /// From NOT_SERVING until no more connections are accepted.
    pub notice: Duration,
    /// For tasks to end.
    pub task_grace: Duration,
    /// Between health checks.
    pub check_interval: Duration,
}

impl Default for SupervisorOptions {
    fn default() -> Self {
        Self {
            notice: Duration::from_secs(3),
            task_grace: Duration::from_secs(10),
            check_interval: Duration::from_secs(5),
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

type Serve = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send>;

/// What runs in a process.
pub struct Supervisor {
    options: SupervisorOptions,
    health: Health,
    readiness: Readiness,
    checks: Vec<HealthCheck>,
    listeners: Vec<(&'static str, Serve)>,
    beside: Vec<(&'static str, Serve)>,
    tasks: Vec<Task>,
    phase: watch::Sender<Phase>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("phase", &*self.phase.borrow()).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// Nothing runs before [`Supervisor::run`].
    pub fn new(health: Health, options: SupervisorOptions) -> Self {
        Self {
            options,
            health,
            readiness: Readiness::default(),
            checks: Vec::new(),
            listeners: Vec::new(),
            beside: Vec::new(),
            tasks: Vec::new(),
            phase: watch::Sender::new(Phase::Serving),
        }
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
        let Self { options, health, readiness, checks, listeners, beside, tasks, phase } = self;
        let stop = Stop::default();
        let mut running = JoinSet::new();
        for (name, serve) in listeners {
            spawn(&mut running, Kind::Listener, name, serve(stop.accept.clone()));
        }
        let mut work = JoinSet::new();
        for task in tasks {
            spawn(&mut work, Kind::Task, task.name, (task.run)(stop.tasks.clone()));
        }
        let mut last = JoinSet::new();
        for (name, serve) in beside {
            spawn(&mut last, Kind::Listener, name, serve(stop.beside.clone()));
        }
        let watching = stop.health.clone();
        let (watched_health, watched) = (health.clone(), readiness.clone());
        let checker = tokio::spawn(async move {
            watched.run(&checks, &watched_health, options.check_interval, &watching).await;
        });
        let failure = loop {
            tokio::select! {
                signal = signals.recv() => {
                    tracing::info!(signal = signal.unwrap_or("none"), "shutting down");
                    break None;
                }
                Some(ended) = running.join_next() => break Some(early(ended)),
                Some(ended) = work.join_next() => match ended {
                    // Work that is done is no reason to stop.
                    Ok(Ended { kind: Kind::Task, result: Ok(()), .. }) => {}
                    ended => break Some(early(ended)),
                },
            }
        };
        if let Some(failure) = &failure {
            tracing::error!(error = %failure, "shutting down");
        }
        let shutdown = async {
            stop.health.cancel();
            readiness.stop();
            if checker.await.is_err() {
                tracing::error!("the health checks panicked");
            }
            health.set(false).await;
            phase.send_replace(Phase::NotServing);
            tokio::time::sleep(options.notice).await;
            phase.send_replace(Phase::Draining);
            stop.accept.cancel();
            while running.join_next().await.is_some() {}
            phase.send_replace(Phase::StoppingTasks);
            stop.tasks.cancel();
            let ended = async {
                let mut failed = None;
                while let Some(ended) = work.join_next().await {
                    if !matches!(&ended, Ok(Ended { result: Ok(()), .. })) {
                        let err = early(ended);
                        tracing::error!(error = %err, "a task did not end well");
                        failed = failed.or(Some(err));
                    }
                }
                failed
            };
            let failed = tokio::time::timeout(options.task_grace, ended).await.unwrap_or_else(|_| {
                tracing::warn!("tasks were cut off: the grace period is over");
                None
            });
            stop.beside.cancel();
            while last.join_next().await.is_some() {}
            phase.send_replace(Phase::Stopped);
            failed
        };
        tokio::select! {
            failed = shutdown => failure.or(failed).map_or(Ok(()), Err),
            Some(_) = signals.recv() => Err(SupervisorError::SecondSignal),
        }
    }
}

#[derive(Default)]
struct Stop {
    health: CancellationToken,
    accept: CancellationToken,
    tasks: CancellationToken,
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
