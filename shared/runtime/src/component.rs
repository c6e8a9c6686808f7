//! What every service's `build()` returns: routes to serve, work to do beside them, and checks of its health.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
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
}

impl Task {
    /// A task from an async function of a cancellation token.
    pub fn new<F, Fut>(name: &'static str, run: F) -> Self
    where
        F: FnOnce(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Self { name, run: Box::new(move |cancel| Box::pin(run(cancel))) }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("name", &self.name).finish_non_exhaustive()
    }
}

type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// One condition of readiness, asked again and again: it must be quick and safe to drop.
#[derive(Clone)]
pub struct HealthCheck {
    /// What is checked, for example `catalog database`.
    pub name: &'static str,
    /// `Err` says for operators what is wrong; it is not shown to callers of the API.
    pub check: Check,
}

impl HealthCheck {
    /// A check from an async function.
    pub fn new<F, Fut>(name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { name, check: Arc::new(move || Box::pin(check())) }
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthCheck").field("name", &self.name).finish_non_exhaustive()
    }
}
