//! Asks the health checks again and again, and tells the gRPC health service and `/readyz`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use pavior_rpc::Health;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::HealthCheck;

/// What the checks said last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// True while the process takes requests.
    pub ready: bool,
    /// Each check: nothing, or what is wrong.
    pub checks: BTreeMap<&'static str, Option<String>>,
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
        self.report.send_modify(|report| report.ready = false);
    }

    async fn ask(&self, checks: &[HealthCheck], limit: Duration) -> bool {
        let asked = checks.iter().map(|check| async move {
            let result = tokio::time::timeout(limit, (check.check)()).await;
            let wrong = result.unwrap_or_else(|_| Err(format!("no answer within {limit:?}"))).err();
            (check.name, wrong)
        });
        let checks: BTreeMap<_, _> = join_all(asked).await.into_iter().collect();
        let ready = checks.values().all(Option::is_none);
        let before = self.report.send_replace(Report { ready, checks: checks.clone() });
        for (name, wrong) in &checks {
            match (before.checks.get(name).and_then(Option::as_ref), wrong) {
                (None, Some(reason)) => tracing::warn!(check = name, reason, "health check fails"),
                (Some(_), None) => tracing::info!(check = name, "health check passes again"),
                _ => {}
            }
        }
        ready
    }

    /// Asks until cancelled; the first time at once.
    pub(crate) async fn run(
        &self,
        checks: &[HealthCheck],
        health: &Health,
        interval: Duration,
        cancel: &CancellationToken,
    ) {
        let mut last = None;
        loop {
            let ready = self.ask(checks, interval.max(Duration::from_secs(2))).await;
            if cancel.is_cancelled() {
                return self.stop();
            }
            if last != Some(ready) {
                health.set(ready).await;
                last = Some(ready);
            }
            tokio::select! {
                () = cancel.cancelled() => return self.stop(),
                () = tokio::time::sleep(interval) => {}
            }
        }
    }
}
