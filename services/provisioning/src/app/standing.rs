//! What drivers say of things now against what is recorded of them: for plans and for the diagnosis alike.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use pavior_driver::{CallContext, Driver, Lookup, Observation, ObserveRequest};
use tokio::time::{Instant, timeout_at};

use super::App;
use crate::domain::standing::{Drift, Standing};
use crate::error::Result;
use crate::store::Recorded;

/// How long a driver may take for all that it is asked about.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many things one driver is asked about at a time.
const AT_ONCE: usize = 8;

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
    pub(crate) async fn look(&self, rows: Vec<Recorded>) -> Result<BTreeMap<String, Sight>> {
        let mut asked: BTreeMap<String, Vec<(Recorded, String)>> = BTreeMap::new();
        for row in rows {
            let declared = self.engine.declaration(&row.name, &row.inputs, &row.sealed_inputs).await?;
            asked.entry(row.driver.clone()).or_default().push((row, declared));
        }
        let drivers = self.engine.drivers();
        let looks: Vec<_> = asked.into_iter().map(|(id, things)| look_of(drivers.get(&id), things)).collect();
        Ok(join_all(looks).await.into_iter().flatten().collect())
    }
}

async fn look_of(driver: Option<Arc<dyn Driver>>, things: Vec<(Recorded, String)>) -> Vec<(String, Sight)> {
    let until = Instant::now() + PATIENCE;
    let looks: Vec<_> = things
        .into_iter()
        .map(|(row, declared)| {
            let driver = driver.clone();
            async move {
                let seen = match driver {
                    Some(driver) => timeout_at(until, observe(&*driver, &row)).await.ok(),
                    None => Some(Observation::Indeterminate { message: "it is not there".to_owned() }),
                };
                (row.name, sight(seen, &declared))
            }
        })
        .collect();
    futures::stream::iter(looks).buffer_unordered(AT_ONCE).collect().await
}

async fn observe(driver: &dyn Driver, row: &Recorded) -> Observation {
    let context = CallContext::new(&row.organization, &row.name, "", 0);
    let lookup = Lookup::Identity(row.identity.clone());
    driver.observe(&context, ObserveRequest { resource_type: row.type_id.clone(), lookup }).await
}

/// What was seen of a thing against what is recorded as declared; nothing when there was no answer in time.
fn sight(seen: Option<Observation>, declared: &str) -> Sight {
    let (standing, declaration) = match seen {
        // A driver that does not keep what it was told cannot be held to it.
        Some(Observation::Found(found)) if found.declaration.is_empty() || found.declaration == declared => {
            (Standing::AsRecorded, found.declaration)
        }
        Some(Observation::Found(found)) => (Standing::Drifted(Drift::Different), found.declaration),
        Some(Observation::Absent) => (Standing::Drifted(Drift::Gone), String::new()),
        Some(Observation::Partial { .. }) => (Standing::Drifted(Drift::Broken), String::new()),
        Some(Observation::Indeterminate { message }) => (Standing::Untold(message), String::new()),
        None => (Standing::Untold("it does not answer in time".to_owned()), String::new()),
    };
    Sight { standing, declaration }
}
