//! What every service's `build()` returns: routes to serve, work to do beside them, and checks of its health.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A service, ready to be served in whatever process it is put into.
#[derive(Debug)]
pub struct Component {
    /// Its role, for example `catalog`.
    pub name: &'static str,
    /// Its gRPC services, without any layer.
    pub routes: tonic::service::Routes,
    /// The full names of the services in `routes`, for health and reflection.
    pub services: Vec<&'static str>,
    /// Its background work.
    pub tasks: Vec<Task>,
    /// What must be well for it to be ready.
    pub checks: Vec<HealthCheck>,
    /// What is closed when all work has ended, such as its database.
    pub closing: Vec<Task>,
}

type Run = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send>;

/// Background work. It ends when its token is cancelled; ending earlier with an error takes the process down.
pub struct Task {
    /// Noun and verb, for example `lease_reaper`.
    pub name: &'static str,
    /// The work.
    pub run: Run,
    /// Whether the work of others needs it, which ends first then.
    pub supports: bool,
}

impl Task {
    /// A task from an async function of a cancellation token.
    pub fn new<F, Fut>(name: &'static str, run: F) -> Self
    where
        F: FnOnce(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Self { name, run: Box::new(move |cancel| Box::pin(run(cancel))), supports: false }
    }

    /// The same, told to end only when all work that does not say so has ended: in a process of several services the
    /// last thing that one of them does may be a call of another.
    #[must_use]
    pub fn supporting(self) -> Self {
        Self { supports: true, ..self }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("name", &self.name).finish_non_exhaustive()
    }
}

type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), Unmet>> + Send + Sync>;

/// What keeps a condition from being met, for programs: what is done about it depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its check has not answered since the start.
    NotChecked,
    /// A database is an older copy: changes are refused until an operator has run `pavior restore`.
    RestoreNeeded,
    /// Audit records are not delivered: changes are refused until they are.
    NotDelivered,
    /// Any other, which the reason tells.
    #[default]
    Other,
}

/// Why a condition is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// For operators.
    pub reason: String,
    /// For programs.
    pub cause: Cause,
}

impl Unmet {
    /// For a cause that programs know.
    pub fn because(cause: Cause, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), cause }
    }
}

impl From<String> for Unmet {
    fn from(reason: String) -> Self {
        Self::because(Cause::Other, reason)
    }
}

/// What it means that a condition does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Calls of the role would fail.
    Blocks,
    /// Calls work; something else does not, or not as well as it should.
    Degrades,
}

/// Where a check's answers come from.
#[derive(Clone)]
pub(crate) enum Source {
    Asked(Check),
    Watched(watch::Receiver<Result<(), String>>),
}

/// One condition of readiness. `Err` says for operators what is wrong; it is not shown to callers of the API.
#[derive(Clone)]
pub struct HealthCheck {
    /// What is checked, for example `catalog database`.
    pub name: Cow<'static, str>,
    /// The role that it is about; that of its component unless it says so.
    pub role: Cow<'static, str>,
    /// What it means when it fails.
    pub severity: Severity,
    pub(crate) source: Source,
}

impl HealthCheck {
    /// A check from an async function, asked again and again: it must be quick and safe to drop.
    pub fn new<F, Fut, E>(name: impl Into<Cow<'static, str>>, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Unmet>,
    {
        let check = move || {
            let asked = check();
            Box::pin(async move { asked.await.map_err(Into::into) }) as BoxFuture<'static, Result<(), Unmet>>
        };
        Self::from(name.into(), Source::Asked(Arc::new(check)))
    }

    /// A check that is followed: what it says counts at once.
    pub fn watching(name: impl Into<Cow<'static, str>>, said: watch::Receiver<Result<(), String>>) -> Self {
        Self::from(name.into(), Source::Watched(said))
    }

    fn from(name: Cow<'static, str>, source: Source) -> Self {
        Self { name, role: Cow::Borrowed(""), severity: Severity::Blocks, source }
    }

    /// What the check says now.
    ///
    /// # Errors
    /// Why the condition does not hold.
    pub async fn ask(&self) -> Result<(), String> {
        match &self.source {
            Source::Asked(check) => check().await.map_err(|unmet| unmet.reason),
            Source::Watched(said) => said.borrow().clone(),
        }
    }

    /// The same about a role.
    #[must_use]
    pub fn about(self, role: impl Into<Cow<'static, str>>) -> Self {
        Self { role: role.into(), ..self }
    }

    /// The same about a role, unless it is about one already.
    #[must_use]
    pub fn of(self, component: &'static str) -> Self {
        if self.role.is_empty() { self.about(component) } else { self }
    }

    /// The same for what does not keep calls from working.
    #[must_use]
    pub fn degrades(self) -> Self {
        Self { severity: Severity::Degrades, ..self }
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, role, severity, source: _ } = self;
        let mut shown = f.debug_struct("HealthCheck");
        shown.field("role", role).field("name", name).field("severity", severity).finish_non_exhaustive()
    }
}
