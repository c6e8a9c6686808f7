//! Drivers as the platform sees them: told what is declared, asked how they are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Gauge, Meter};
use pavior_driver::{Driver, Failure, FailureCode, Health, ListRequest, Listed};
use tokio::time::Instant;

use super::App;
use crate::error::Result;

/// How long a driver may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a driver is asked for at once.
const PAGE: usize = 1_000;
/// So many pages in a row may hold nothing.
const MAX_EMPTY: usize = 20;
/// The most that is compared of what one driver has.
const MOST: usize = 200_000;
/// How long a driver may take for one page of what it has.
const LIST_PATIENCE: Duration = Duration::from_secs(10);
/// And for all of it: one that always has another page ends nobody's patience but this.
const WHOLE_PATIENCE: Duration = Duration::from_secs(600);

/// How each driver was when it was last asked.
#[derive(Clone)]
pub(crate) struct Conditions {
    known: Arc<Mutex<BTreeMap<String, Health>>>,
    gauge: Gauge<u64>,
}

impl std::fmt::Debug for Conditions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.known.lock().unwrap_or_else(PoisonError::into_inner).iter()).finish()
    }
}

impl Conditions {
    pub(crate) fn new(meter: &Meter) -> Self {
        let gauge = meter
            .u64_gauge("pavior.provisioning.driver.condition")
            .with_description(
                "How a driver is: 0 well, 1 something of its own is not as it should be, 2 down",
            )
            .build();
        Self { known: Arc::default(), gauge }
    }

    /// The drivers that were not well when they were last asked, and why.
    fn unwell(&self) -> BTreeMap<String, String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let unwell = known.iter().filter_map(|(driver, health)| match health {
            Health::Ok => None,
            Health::Degraded(why) | Health::Down(why) => Some((driver.clone(), why.clone())),
        });
        unwell.collect()
    }

    /// Keeps what a driver said, and tells of changes.
    fn set(&self, driver: &str, now: &Health) {
        let (number, message) = match now {
            Health::Ok => (0, ""),
            Health::Degraded(what) => (1, what.as_str()),
            Health::Down(why) => (2, why.as_str()),
        };
        self.gauge.record(number, &[KeyValue::new("driver", driver.to_owned())]);
        let before = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(driver.to_owned(), now.clone()).unwrap_or(Health::Ok)
        };
        match (before == *now, now) {
            (true, _) => {}
            (false, Health::Ok) => tracing::info!(driver, "a driver is well again"),
            (false, _) => tracing::warn!(driver, message, "a driver is not well"),
        }
    }
}

/// How a driver is; one that does not answer is down.
pub(crate) async fn condition(driver: &dyn Driver) -> Health {
    let silent = || Health::Down(format!("it does not answer within {PATIENCE:?}"));
    tokio::time::timeout(PATIENCE, driver.health()).await.unwrap_or_else(|_| silent())
}

/// Goes through what a driver has, in order of identity and with one page in memory, for as long as `look` wants more.
pub(super) async fn go_through(
    driver: &dyn Driver,
    mut look: impl FnMut(Listed) -> ControlFlow<()>,
) -> std::result::Result<ControlFlow<()>, Failure> {
    let until = Instant::now() + WHOLE_PATIENCE;
    let mut page_token = String::new();
    let (mut last, mut empty): (Option<String>, usize) = (None, 0);
    loop {
        let page = driver.list(ListRequest { page_size: PAGE, page_token });
        let page = tokio::time::timeout_at(until.min(Instant::now() + LIST_PATIENCE), page);
        let page = page.await.map_err(|_| Failure::new(FailureCode::Timeout, "it takes too long"))??;
        empty = if page.resources.is_empty() { empty + 1 } else { 0 };
        if empty > MAX_EMPTY {
            return Err(Failure::new(
                FailureCode::Internal,
                "its answer goes on without telling of anything",
            ));
        }
        for thing in page.resources {
            if last.as_ref().is_some_and(|last| *last >= thing.identity) {
                return Err(Failure::new(FailureCode::Internal, "its answer is not in order of identity"));
            }
            last = Some(thing.identity.clone());
            if look(thing).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if page.next_page_token.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        page_token = page.next_page_token;
    }
}

/// Everything that a driver has, in order of identity.
pub(super) async fn all(driver: &dyn Driver) -> std::result::Result<Vec<Listed>, Failure> {
    let mut things: Vec<Listed> = Vec::new();
    let gone_through = go_through(driver, |thing| {
        things.push(thing);
        if things.len() > MOST { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match gone_through.await? {
        ControlFlow::Continue(()) => Ok(things),
        ControlFlow::Break(()) => {
            Err(Failure::new(FailureCode::Unsupported, "it has more than can be compared"))
        }
    }
}

/// What a driver has under these identities.
pub(super) async fn those(
    driver: &dyn Driver,
    mut wanted: BTreeSet<&str>,
) -> std::result::Result<Vec<Listed>, Failure> {
    let mut found = Vec::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    let gone_through = go_through(driver, |thing| {
        // What comes before it in order does not come any more.
        while let Some(first) = wanted.first().copied().filter(|first| *first <= thing.identity.as_str()) {
            wanted.remove(first);
            if first == thing.identity {
                found.push(thing.clone());
            }
        }
        if wanted.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    gone_through.await.map(|_| found)
}

impl App {
    /// The drivers that are away or not well, and why: what they make waits, and everything else works.
    pub(crate) fn drivers_unwell(&self) -> BTreeMap<String, String> {
        let mut unwell = self.conditions.unwell();
        unwell.extend(self.engine.drivers_away().into_iter().map(|away| {
            let why = format!("has been away for {} s: {}", away.since.as_secs(), away.why);
            (away.driver, why)
        }));
        unwell
    }

    /// Tells every driver which artifacts are needed, so that it can forget the others.
    pub(crate) async fn keep_artifacts(&self) -> Result<()> {
        let Some(kept) = self.db.kept_artifacts_unscoped().await? else { return Ok(()) };
        let drivers = self.engine.drivers().all();
        join_all(drivers.iter().map(|driver| driver.keep_artifacts(&kept))).await;
        Ok(())
    }

    /// Tells a driver which of its resources are declared. How long it takes is its own affair.
    pub(crate) async fn tell(&self, driver: &dyn Driver) -> Result<()> {
        driver.reconcile(&self.db.declared_of_unscoped(&driver.info().id).await?).await;
        Ok(())
    }

    /// Asks a driver how it is.
    pub(crate) async fn ask_how(&self, driver: &dyn Driver) {
        self.conditions.set(&driver.info().id, &condition(driver).await);
    }
}
