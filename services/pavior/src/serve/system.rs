//! A running system: listeners, components, and how it ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use pavior_rpc::server::{ServeOptions, ServerTls};
use pavior_runtime::telemetry::Guard;
use pavior_runtime::{Cause, Condition, Readiness, Report, Severity, Supervisor, SupervisorOptions};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::components::{self, Assembly, Listener};
use super::config::Config;
use super::role::Role;

/// A system, or a part of one, that runs in this process. Several live side by side.
#[derive(Debug)]
pub struct System {
    addresses: BTreeMap<&'static str, SocketAddr>,
    tls: bool,
    readiness: Readiness,
    stop: mpsc::Sender<&'static str>,
    running: JoinHandle<anyhow::Result<()>>,
}

impl System {
    /// Starts roles without setting up logging: for the quickstart and for tests.
    pub async fn start(config: Config, roles: &[Role]) -> anyhow::Result<Self> {
        Self::start_with(config, roles, Guard::metrics_only()?).await
    }

    /// Starts roles. Returns once every listener is open and every component is built; listeners are bound before
    /// anything else, so that a port in use is reported at once.
    pub async fn start_with(config: Config, roles: &[Role], telemetry: Guard) -> anyhow::Result<Self> {
        let mut listeners = bind(&config, roles).await?;
        let addresses = addresses(&listeners)?;
        let tls = tls(&config)?;
        let assembly = components::assemble(&config, roles, &telemetry, &addresses).await?;
        let Assembly { health, listeners: served, tasks, checks, closing, git, drain } = assembly;
        let grace = Duration::from_millis(config.shutdown.grace_ms);
        let options = SupervisorOptions {
            notice: Duration::from_millis(config.shutdown.notice_ms),
            grace,
            task_grace: Duration::from_millis(config.shutdown.task_grace_ms),
            ..SupervisorOptions::default()
        };
        let mut supervisor =
            Supervisor::new(options).health(health).checks(checks).tasks(tasks).closing(closing);
        for Listener { role, stack } in served {
            let listener = listeners.remove(role.name()).context("a service has no listener")?;
            let public = role == Role::Gateway;
            let serve = ServeOptions {
                tls: tls.clone().filter(|_| public),
                http1: public,
                grace,
                drain: drain.clone(),
                ..ServeOptions::default()
            };
            supervisor = supervisor.listener(role.name(), listener, stack, serve);
        }
        if let (Some(router), Some(listener)) = (git, listeners.remove("git")) {
            supervisor = supervisor.server("git", move |stop| async move {
                axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?;
                Ok(())
            });
        }
        let admin = listeners.remove("admin").context("the admin listener is missing")?;
        supervisor = supervisor.admin(admin, telemetry.registry().clone());
        let readiness = supervisor.readiness();
        let (stop, stopped) = mpsc::channel(2);
        let running = tokio::spawn(async move {
            let ended = supervisor.run(stopped).await;
            telemetry.shutdown().await;
            ended.map_err(anyhow::Error::from)
        });
        let system = Self { addresses, tls: tls.is_some(), readiness: readiness.clone(), stop, running };
        let start_limit = Duration::from_secs(30);
        // A peer in another process may come later: only what runs here is waited for.
        if roles.len() == Role::ALL.len() {
            let usable = readiness.wait_for(|report| report.ready || changes_are_refused(report));
            let Ok(report) = tokio::time::timeout(start_limit, usable).await else {
                let report = readiness.report();
                system.stop().await?;
                anyhow::bail!("the system did not become ready: {:?}", failing(&report));
            };
            if !report.ready {
                tracing::error!(checks = ?failing(&report), "the system is not ready: changes are refused");
            }
        }
        Ok(system)
    }

    /// The gateway's address as a URL.
    pub fn server(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address("gateway"))
    }

    /// What keeps it from being ready.
    pub(super) fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Where operators look.
    pub fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    /// The address of a listener; `0.0.0.0:0` when it is not open.
    pub fn address(&self, name: &str) -> SocketAddr {
        self.addresses.get(name).copied().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Every open listener.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> + '_ {
        self.addresses.iter().map(|(name, address)| (*name, *address))
    }

    /// Ends the system in phases.
    pub async fn stop(self) -> anyhow::Result<()> {
        // The send fails when the system has ended by itself; the handle then has the reason.
        let _ = self.stop.send("stop").await;
        self.running.await?
    }

    /// Runs until SIGTERM or SIGINT; a second one ends it at once.
    pub async fn run_until_signal(mut self) -> anyhow::Result<()> {
        let mut signals = pavior_runtime::os_signals()?;
        loop {
            tokio::select! {
                ended = &mut self.running => return ended?,
                Some(signal) = signals.recv() => {
                    let _ = self.stop.send(signal).await;
                }
            }
        }
    }
}

/// True when only the delivery of audit records fails, as after a database was set back: reads still work, and changes
/// are refused until an operator has acted.
fn changes_are_refused(report: &Report) -> bool {
    let failing = failing(report);
    let refuses =
        |condition: &&Condition| matches!(condition.cause, Some(Cause::RestoreNeeded | Cause::NotDelivered));
    !failing.is_empty() && failing.iter().all(refuses)
}

/// The conditions that are not met and without which it is not ready.
fn failing(report: &Report) -> Vec<&Condition> {
    let unmet = report.conditions.values().filter(|condition| condition.reason.is_some());
    unmet.filter(|condition| condition.severity == Severity::Blocks).collect()
}

async fn bind(config: &Config, roles: &[Role]) -> anyhow::Result<BTreeMap<&'static str, TcpListener>> {
    let listen = &config.listen;
    let mut wanted = vec![("admin", listen.admin)];
    let apart = roles.len() < Role::ALL.len();
    for role in roles {
        match role {
            Role::Gateway => wanted.push(("gateway", listen.gateway)),
            Role::Audit if apart => wanted.push(("audit", listen.audit)),
            Role::Catalog if apart => wanted.push(("catalog", listen.catalog)),
            Role::Policy if apart => wanted.push(("policy", listen.policy)),
            Role::Provisioning if apart => wanted.push(("provisioning", listen.provisioning)),
            _ => {}
        }
        if *role == Role::Provisioning {
            wanted.push(("git", listen.git));
        }
    }
    let mut listeners = BTreeMap::new();
    for (name, address) in wanted {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!(
                "`listen.{name}` = {address}: must be an address of this machine with a free port, or port 0"
            )
        })?;
        listeners.insert(name, listener);
    }
    Ok(listeners)
}

fn addresses(
    listeners: &BTreeMap<&'static str, TcpListener>,
) -> anyhow::Result<BTreeMap<&'static str, SocketAddr>> {
    listeners.iter().map(|(name, listener)| Ok((*name, listener.local_addr()?))).collect()
}

fn tls(config: &Config) -> anyhow::Result<Option<ServerTls>> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))
    };
    let (Some(certificate), Some(key)) = (&config.tls.certificate_file, &config.tls.key_file) else {
        return Ok(None);
    };
    let client_ca = config.tls.client_ca_file.as_deref().map(read).transpose()?;
    Ok(Some(ServerTls::from_pem(&read(certificate)?, &read(key)?, client_ca.as_deref())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_degrades_beside_an_older_copy_keeps_nobody_from_reading() {
        let condition = |name: &str, severity, cause| Condition {
            role: "provisioning".to_owned(),
            name: name.to_owned(),
            severity,
            reason: Some("not well".to_owned()),
            cause: Some(cause),
        };
        let mut report = Report::default();
        let mut add = |condition: Condition| {
            report.conditions.insert((condition.role.clone(), condition.name.clone()), condition);
            changes_are_refused(&report)
        };
        assert!(!add(condition("provisioning stuck", Severity::Degrades, Cause::Other)));
        assert!(add(condition("provisioning outbox", Severity::Blocks, Cause::RestoreNeeded)));
        assert!(!add(condition("database", Severity::Blocks, Cause::Other)));
    }
}
