//! Whether the services behind the gateway would answer, and which of them a call needs.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use pavior_rpc::{Transport, health, methods};
use pavior_runtime::{HealthCheck, Task};
use tokio::sync::watch;

use crate::routes::{Method, RouteTable};
use crate::{CATALOG_ROLE, PLATFORM_ROLE, POLICY_ROLE, PROVISIONING_ROLE, ROLE};

/// Whom each role asks while it answers a call: policy reads the directory, and provisioning plans with templates and
/// asks policy about the plan. Who asks stands before who is asked.
const ASKS: &[(&str, &[&str])] =
    &[(PROVISIONING_ROLE, &[CATALOG_ROLE, POLICY_ROLE]), (POLICY_ROLE, &[CATALOG_ROLE])];

/// The roles that a call of each public service needs: that of the service, policy where it is asked, and whoever
/// these ask themselves.
pub(crate) fn needs(table: &RouteTable) -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut needs: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
    for method in table.methods() {
        let Some(known) = methods::method(&method.path) else { continue };
        needs.entry(known.service.as_str()).or_default().extend(asked(method));
    }
    for roles in needs.values_mut() {
        for (role, asks) in ASKS {
            if roles.contains(*role) {
                roles.extend(asks.iter().map(|asked| (*asked).to_owned()));
            }
        }
    }
    needs
}

fn asked(method: &Method) -> impl Iterator<Item = String> + '_ {
    let role = if method.role == PLATFORM_ROLE { ROLE } else { &method.role };
    [(role, true), (POLICY_ROLE, method.governed)]
        .into_iter()
        .filter(|(_, asked)| *asked)
        .map(|(role, _)| role.to_owned())
}

/// The conditions that the services answer, and the task that keeps them up to date.
pub(crate) fn watch(upstreams: &BTreeMap<String, Transport>) -> (Vec<HealthCheck>, Task) {
    let mut checks = Vec::new();
    let mut watched = Vec::new();
    for (role, upstream) in upstreams {
        let (news, said) = watch::channel(Err("not asked yet".to_owned()));
        checks.push(HealthCheck::watching("answers the gateway", said).about(role.clone()));
        watched.push((upstream.clone(), news));
    }
    let task = Task::new("upstream_watcher", move |cancel| async move {
        let all = join_all(watched.into_iter().map(|(upstream, news)| async move {
            health::follow(upstream, |said| drop(news.send_replace(said))).await;
        }));
        cancel.run_until_cancelled(all).await;
        Ok(())
    });
    (checks, task)
}
