//! The conditions under which the process would answer: checks are asked again and again, or followed, and what they
//! say goes to the gRPC health services and to `/readyz` at once.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use pavior_rpc::Health;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::component::{Cause, HealthCheck, Severity, Source, Unmet};

/// Why a condition does not hold before its check has answered.
const NOT_CHECKED: &str = "not checked yet";
/// For a check to answer.
const LIMIT: Duration = Duration::from_secs(2);

/// What a check said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// The role that it is about.
    pub role: String,
    /// What is checked.
    pub name: String,
    /// What it means when it does not hold.
    pub severity: Severity,
    /// Why it does not hold, for operators; nothing while it does.
    pub reason: Option<String>,
    /// The same for programs.
    pub cause: Option<Cause>,
}

/// What the checks said last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// True while the process takes requests.
    pub ready: bool,
    /// True when something is wrong that does not keep it from that.
    pub degraded: bool,
    /// By role and name.
    pub conditions: BTreeMap<(String, String), Condition>,
    stopping: bool,
}

impl Report {
    /// Whether a call that needs these roles would work; none stands for all.
    pub fn well(&self, roles: &BTreeSet<String>) -> bool {
        let concerned = |condition: &&Condition| roles.is_empty() || roles.contains(&condition.role);
        !self.stopping && !self.conditions.values().filter(concerned).any(blocks)
    }

    /// Why a condition does not hold.
    pub fn reason(&self, role: &str, name: &str) -> Option<&str> {
        self.conditions.get(&(role.to_owned(), name.to_owned()))?.reason.as_deref()
    }

    fn note(&mut self, check: &HealthCheck, said: Result<(), Unmet>) {
        let key = (check.role.to_string(), check.name.to_string());
        let (role, name) = key.clone();
        let (reason, cause) = said.err().map(|Unmet { reason, cause }| (reason, cause)).unzip();
        self.conditions.insert(key, Condition { role, name, severity: check.severity, reason, cause });
        self.ready = self.well(&BTreeSet::new());
        self.degraded = self.conditions.values().any(|c| c.reason.is_some() && !blocks(c));
    }
}

fn blocks(condition: &Condition) -> bool {
    condition.reason.is_some() && condition.severity == Severity::Blocks
}

/// The present report, shared by clones.
#[derive(Debug, Clone)]
pub struct Readiness {
    report: Arc<watch::Sender<Report>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { report: Arc::new(watch::Sender::new(Report::default())) }
    }
}

impl Readiness {
    /// What the checks said last.
    pub fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    /// Waits until the report fulfils `condition`.
    pub async fn wait_for(&self, condition: impl FnMut(&Report) -> bool) -> Report {
        match self.report.subscribe().wait_for(condition).await {
            Ok(report) => report.clone(),
            // Not reachable while `self` holds the sender.
            Err(_) => self.report(),
        }
    }

    /// Not ready any more, whatever the checks say.
    pub(crate) fn stop(&self) {
        self.report.send_modify(|report| {
            report.stopping = true;
            report.ready = false;
        });
    }

    /// Follows the checks until cancelled, and tells what they say.
    pub(crate) async fn run(
        &self,
        checks: &[HealthCheck],
        told: &[Health],
        interval: Duration,
        cancel: &CancellationToken,
    ) {
        self.report.send_modify(|report| {
            report.ready = true;
            for check in checks {
                report.note(check, Err(Unmet::because(Cause::NotChecked, NOT_CHECKED)));
            }
        });
        let followed = join_all(checks.iter().map(|check| self.follow(check, interval)));
        tokio::select! {
            () = cancel.cancelled() => {}
            _ = async { tokio::join!(followed, self.tell(told)) } => {}
        }
        self.stop();
    }

    /// One check, on its own: one that hangs holds up no other.
    async fn follow(&self, check: &HealthCheck, interval: Duration) {
        match &check.source {
            Source::Asked(ask) => loop {
                let said = tokio::time::timeout(LIMIT, ask()).await;
                self.note(check, said.unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}").into())));
                tokio::time::sleep(interval).await;
            },
            Source::Watched(said) => {
                let mut said = said.clone();
                loop {
                    let now = said.borrow_and_update().clone();
                    self.note(check, now.map_err(Unmet::from));
                    if said.changed().await.is_err() {
                        self.note(check, Err("nobody looks any more".to_owned().into()));
                        return;
                    }
                }
            }
        }
    }

    fn note(&self, check: &HealthCheck, said: Result<(), Unmet>) {
        self.report.send_if_modified(|report| {
            let before = report.reason(&check.role, &check.name).map(str::to_owned);
            let now = said.as_ref().err().map(|unmet| &unmet.reason);
            if before.as_ref() == now {
                return false;
            }
            match (&before, now) {
                (None, Some(reason)) => {
                    tracing::warn!(role = %check.role, check = %check.name, reason, "health check fails");
                }
                (Some(_), None) => {
                    tracing::info!(role = %check.role, check = %check.name, "health check passes");
                }
                _ => {}
            }
            report.note(check, said);
            true
        });
    }

    async fn tell(&self, told: &[Health]) {
        let mut report = self.report.subscribe();
        loop {
            let now = report.borrow_and_update().clone();
            for health in told {
                health.tell(|roles| now.well(roles)).await;
            }
            if report.changed().await.is_err() {
                return pending().await;
            }
        }
    }
}
