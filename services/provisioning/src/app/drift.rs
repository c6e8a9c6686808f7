//! What drivers say of things now against what is recorded of them: for plans and for the diagnosis alike.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use pavior_driver::{CallContext, Dependents, Driver, Lookup, Observation, ObserveRequest};
use pavior_rpc::{ErrorReason, Problem};
use tokio::time::{Instant, timeout, timeout_at};

use super::App;
use super::driver::those;
use crate::domain::drift::{Drift, Standing};
use crate::domain::teardown::Holds;
use crate::error::Result;
use crate::store::ResourceRecord;

/// How long a driver may take for all that it is asked about.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many things one driver is asked about at a time.
const AT_ONCE: usize = 8;
/// How many are named of those that depend on something.
const MAX_NAMED: usize = 20;

/// A thing as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) standing: Standing,
    /// What its driver was last told, as far as it says so.
    pub(crate) declaration: String,
}

impl App {
    /// Asks the drivers about things that are recorded. They are asked beside each other, so that one that does not
    /// answer is the only one of which nothing is known.
    pub(crate) async fn look(&self, rows: Vec<ResourceRecord>) -> Result<BTreeMap<String, Sight>> {
        let mut asked: BTreeMap<String, Vec<(ResourceRecord, String)>> = BTreeMap::new();
        for row in rows {
            let declared = self.engine.declaration(&row.name, &row.inputs, &row.sealed_inputs).await?;
            asked.entry(row.driver.clone()).or_default().push((row, declared));
        }
        let drivers = self.engine.drivers();
        let looks: Vec<_> = asked.into_iter().map(|(id, things)| look_of(drivers.get(&id), things)).collect();
        Ok(join_all(looks).await.into_iter().flatten().collect())
    }
}

impl App {
    /// What its driver refuses to destroy for the sake of others, and for whose sake now. That nothing needs a thing is not
    /// said without having asked.
    pub(crate) async fn holds(&self, rows: Vec<ResourceRecord>) -> Result<Holds> {
        let drivers = self.engine.drivers();
        // What is not made yet nobody needs, and without its driver it waits.
        let made = rows.into_iter().filter(|row| !row.identity.is_empty());
        let asked: Vec<_> = made
            .filter_map(|row| drivers.get(&row.driver).map(|driver| dependents_of(driver, row)))
            .collect();
        let answers: Vec<_> = futures::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
        answers.into_iter().filter_map(Result::transpose).collect()
    }
}

async fn dependents_of(
    driver: Arc<dyn Driver>,
    row: ResourceRecord,
) -> Result<Option<(String, Vec<String>)>> {
    let context = CallContext::new(&row.organization, &row.name, "", 0);
    let lookup = Lookup::Identity(row.identity);
    let request = ObserveRequest { resource_type: row.type_id, lookup };
    let why = match timeout(PATIENCE, driver.dependents(&context, request)).await {
        Ok(Ok(Dependents::Ignored)) => return Ok(None),
        Ok(Ok(Dependents::Are(names))) => return Ok(Some((row.name, names))),
        Ok(Err(failure)) => failure.message,
        Err(_) => "it does not answer in time".to_owned(),
    };
    let message =
        format!("driver `{}` does not say whether `{}` can be taken down: {why}", row.driver, row.name);
    Err(Problem::unavailable(message).with("dependency", row.driver).into())
}

/// Refuses to destroy what something needs that stays.
pub(crate) fn refuse_held(held: &[(&str, &str)]) -> Result<()> {
    let Some((first, _)) = held.first() else { return Ok(()) };
    let message = format!("`{first}` is needed by others: delete what uses it first");
    refuse_dependents(&message, held, |held| format!("needs `{held}`"))
}

/// Refuses what others depend on, each beside what it depends on, and names them; as many as an error should have.
pub(crate) fn refuse_dependents(
    message: &str,
    dependents: &[(&str, &str)],
    how: impl Fn(&str) -> String,
) -> Result<()> {
    let Some((first, _)) = dependents.first() else { return Ok(()) };
    let problem = Problem::precondition(ErrorReason::HasDependents, message)
        .with("resource", *first)
        .with("more", (dependents.len() > MAX_NAMED).to_string());
    let named = dependents.iter().take(MAX_NAMED);
    let named = named.fold(problem, |problem, (of, by)| problem.because("REFERENCE", *by, how(of)));
    Err(named.into())
}

async fn look_of(
    driver: Option<Arc<dyn Driver>>,
    things: Vec<(ResourceRecord, String)>,
) -> Vec<(String, Sight)> {
    let until = Instant::now() + PATIENCE;
    let looks: Vec<_> = things
        .into_iter()
        .map(|(row, declared)| {
            let driver = driver.clone();
            let identity = row.identity.clone();
            async move {
                let seen = match driver {
                    Some(driver) => timeout_at(until, observe(&*driver, &row)).await.ok(),
                    None => Some(Observation::Indeterminate { message: "it is not there".to_owned() }),
                };
                (row.name, identity, sight(seen, &declared))
            }
        })
        .collect();
    let mut sights: Vec<_> = futures::stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
    if let Some(driver) = driver {
        tell_gone_from_broken(&*driver, &mut sights, until).await;
    }
    sights.into_iter().map(|(name, _, sight)| (name, sight)).collect()
}

/// What is left of a thing may be no more than its driver's note of it: one that the driver does not name among what it
/// has is gone, to whoever asks.
async fn tell_gone_from_broken(driver: &dyn Driver, sights: &mut [(String, String, Sight)], until: Instant) {
    let broken = |sight: &Sight| sight.standing == Standing::Drifted(Drift::Broken);
    let wanted =
        sights.iter().filter(|(_, _, sight)| broken(sight)).map(|(_, identity, _)| identity.as_str());
    // A driver that cannot say is believed as far as it said something.
    let Ok(Ok(listed)) = timeout_at(until, those(driver, wanted.collect())).await else {
        return;
    };
    for (_, identity, sight) in sights.iter_mut().filter(|(_, _, sight)| broken(sight)) {
        if !listed.iter().any(|thing| thing.identity == *identity) {
            sight.standing = Standing::Drifted(Drift::Gone);
        }
    }
}

async fn observe(driver: &dyn Driver, row: &ResourceRecord) -> Observation {
    let context = CallContext::new(&row.organization, &row.name, "", 0);
    let lookup = Lookup::Identity(row.identity.clone());
    driver.observe(&context, ObserveRequest { resource_type: row.type_id.clone(), lookup }).await
}

/// What was seen of a thing against what is recorded as declared; nothing when there was no answer in time.
fn sight(seen: Option<Observation>, declared: &str) -> Sight {
    let (standing, declaration) = match seen {
        // A driver that does not keep what it was told cannot be held to it.
        Some(Observation::Found(found))
            if found.declaration_digest.is_empty() || found.declaration_digest == declared =>
        {
            (Standing::AsRecorded, found.declaration_digest)
        }
        Some(Observation::Found(found)) => (Standing::Drifted(Drift::Different), found.declaration_digest),
        Some(Observation::Absent) => (Standing::Drifted(Drift::Gone), String::new()),
        Some(Observation::Partial { .. }) => (Standing::Drifted(Drift::Broken), String::new()),
        Some(Observation::Indeterminate { message }) => (Standing::Untold(message), String::new()),
        None => (Standing::Untold("it does not answer in time".to_owned()), String::new()),
    };
    Sight { standing, declaration }
}
