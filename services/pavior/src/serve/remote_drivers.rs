//! Drivers in other processes. One that is away does not keep the platform from starting: it is connected when it
//! comes, and until then what needs it waits, and the process says so.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use pavior_core::clock::Clock;
use pavior_core::id_gen::IdGen;
use pavior_driver::{Driver, Health, Registry};
use pavior_driver_grpc::{RemoteDriver, RemoteOptions};
use pavior_rpc::ClientTls;
use pavior_runtime::{HealthCheck, Task};

use super::config;

/// For a driver to answer while the process starts.
const FIRST_TRY: Duration = Duration::from_secs(3);
/// Before one that was away is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// A configured driver.
struct Wanted {
    endpoint: String,
    tls: Option<ClientTls>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
    registry: Registry,
    /// The error of the last attempt.
    trouble: Arc<Mutex<String>>,
}

/// Connects the drivers that answer; returns a health check for each, and the task that connects the others.
pub(super) async fn connect(
    settings: &[config::RemoteDriver],
    registry: &Registry,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn IdGen>,
) -> anyhow::Result<(Vec<HealthCheck>, Task)> {
    let mut wanted = Vec::new();
    let mut checks = Vec::new();
    for setting in settings {
        let one = Wanted::new(setting, registry, clock, ids)?;
        registry.expect(&one.endpoint);
        checks.push(one.check());
        wanted.push(one);
    }
    let missing = join_all(wanted.into_iter().map(|one| async move {
        let tried = tokio::time::timeout(FIRST_TRY, one.connect()).await;
        let tried = tried.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {FIRST_TRY:?}")));
        tried.err().map(|error| {
            tracing::warn!(endpoint = one.endpoint, error = format!("{error:#}"), "driver is not connected");
            one.note(&error);
            one
        })
    }));
    let missing: Vec<Wanted> = missing.await.into_iter().flatten().collect();
    let task = Task::new("driver_connector", move |cancel| async move {
        let all = join_all(missing.iter().map(Wanted::keep_trying));
        cancel.run_until_cancelled(all).await;
        Ok(())
    });
    Ok((checks, task))
}

impl Wanted {
    fn new(
        setting: &config::RemoteDriver,
        registry: &Registry,
        clock: &Arc<dyn Clock>,
        ids: &Arc<dyn IdGen>,
    ) -> anyhow::Result<Self> {
        let tls = match &setting.ca_file {
            Some(path) => Some(ClientTls {
                ca_pem: std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?,
                identity: None,
                domain: None,
            }),
            None => None,
        };
        pavior_rpc::transport::check_endpoint(&setting.endpoint, tls.as_ref())
            .with_context(|| format!("the driver at `{}`", setting.endpoint))?;
        Ok(Self {
            endpoint: setting.endpoint.clone(),
            tls,
            clock: clock.clone(),
            ids: ids.clone(),
            registry: registry.clone(),
            trouble: Arc::new(Mutex::new("not connected yet".to_owned())),
        })
    }

    async fn connect(&self) -> anyhow::Result<()> {
        let options =
            RemoteOptions { clock: self.clock.clone(), ids: self.ids.clone(), ..RemoteOptions::default() };
        let driver = RemoteDriver::connect_endpoint(&self.endpoint, self.tls.clone(), options).await?;
        let id = driver.info().id;
        anyhow::ensure!(self.registry.join(&self.endpoint, Arc::new(driver)), "there are two drivers `{id}`");
        tracing::info!(driver = id, endpoint = self.endpoint, "remote driver connected");
        Ok(())
    }

    async fn keep_trying(&self) {
        while let Err(error) = self.connect().await {
            self.note(&error);
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn note(&self, error: &anyhow::Error) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = format!("{error:#}");
    }

    /// A driver that is away degrades the process: only the operations that need it wait.
    fn check(&self) -> HealthCheck {
        let (endpoint, registry, trouble) =
            (self.endpoint.clone(), self.registry.clone(), self.trouble.clone());
        HealthCheck::new(format!("driver at {endpoint}"), move || {
            let (driver, trouble) = (registry.joined(&endpoint), trouble.clone());
            async move {
                let Some(driver) = driver else {
                    return Err(trouble.lock().unwrap_or_else(PoisonError::into_inner).clone());
                };
                match driver.health().await {
                    Health::Ok => Ok(()),
                    Health::Degraded(reason) | Health::Down(reason) => Err(reason),
                }
            }
        })
        .about("provisioning")
        .degrades()
    }
}
