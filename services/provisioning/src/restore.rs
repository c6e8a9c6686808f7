//! What `pavior restore` needs of provisioning: what was under way in a database that was set back, and to park it.

use std::sync::Arc;

use pavior_core::clock::Clock;
use pavior_core::id::IdGen;
use pavior_store::Store;

use crate::error::Result;
use crate::store::Db;

/// The names of operations that the engine would go on with.
pub async fn under_way(store: Store, clock: Arc<dyn Clock>, ids: Arc<dyn IdGen>) -> Result<Vec<String>> {
    let db = Db::new(store, clock, ids, "restore");
    Ok(db.parkable_unscoped().await?.into_iter().map(|(_, name)| name).collect())
}

/// Parks them as stuck, for operators; returns their names.
pub async fn park(store: Store, clock: Arc<dyn Clock>, ids: Arc<dyn IdGen>) -> Result<Vec<String>> {
    let db = Db::new(store, clock, ids, "restore");
    let mut parked = Vec::new();
    for (id, name) in db.parkable_unscoped().await? {
        if db.park_unscoped(id).await? {
            parked.push(name);
        }
    }
    Ok(parked)
}
