//! What `pavior restore` needs of provisioning: what would go on by itself in a database that was set back, and to hold
//! it up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pavior_core::audit::PrincipalRef;
use pavior_core::clock::Clock;
use pavior_core::id_gen::IdGen;
use pavior_store::Store;
use pavior_store::outbox::Limits;

use crate::error::Result;
use crate::store::{Db, unknown_unscoped};

/// How long environments stand at least after the database was set back. Time enough to prolong what is still wanted.
pub const GRACE: Duration = Duration::from_secs(24 * 3_600);

/// What would go on by itself, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Operations that the engine would carry out, and those that wait for people, who may have answered since.
    pub operations: Vec<String>,
    /// Environments that would be taken down before the grace is over.
    pub environments: Vec<String>,
}

/// A restoration records whatever waits to be delivered.
fn open(store: Store, clock: Arc<dyn Clock>, ids: Arc<dyn IdGen>) -> Db {
    Db::new(store, clock, ids, "restore", Limits::endless())
}

/// What would go on.
pub async fn under_way(store: Store, clock: Arc<dyn Clock>, ids: Arc<dyn IdGen>) -> Result<UnderWay> {
    let db = open(store, clock, ids);
    let operations = db.parkable_unscoped().await?.into_iter().map(|(_, name)| name).collect();
    Ok(UnderWay { operations, environments: db.expiring_unscoped(GRACE).await? })
}

/// Those of some operations that are not known here.
pub async fn unknown(store: Store, names: Vec<String>) -> Result<BTreeSet<String>> {
    unknown_unscoped(&store, names).await
}

/// Parks the operations as stuck, for operators; returns which it was.
pub async fn park(
    store: Store,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
    operator: &PrincipalRef,
) -> Result<Vec<String>> {
    let db = open(store, clock, ids);
    let mut parked = Vec::new();
    for (id, name) in db.parkable_unscoped().await? {
        if db.park_unscoped(id, operator).await? {
            parked.push(name);
        }
    }
    Ok(parked)
}

/// Lets the environments stand for the grace; returns which it was.
pub async fn spare(
    store: Store,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
    operator: &PrincipalRef,
) -> Result<Vec<String>> {
    let db = open(store, clock, ids);
    let mut spared = Vec::new();
    for name in db.expiring_unscoped(GRACE).await? {
        if db.spare_unscoped(&name, GRACE, operator).await? {
            spared.push(name);
        }
    }
    Ok(spared)
}
