//! What `pavior restore` needs of policy: approvals about operations that were lost, and to end them.

use std::sync::Arc;

use pavior_core::audit::PrincipalRef;
use pavior_core::clock::Clock;
use pavior_core::id::IdGen;
use pavior_store::{Store, StoreError};

use crate::store;
pub use crate::store::Pending;

/// All of them.
///
/// # Errors
/// The database's.
pub async fn pending(store: &Store) -> Result<Vec<Pending>, StoreError> {
    store::pending_unscoped(store).await
}

/// Ends those whose operations are lost, so that nobody answers what nobody asks any more; returns how many.
///
/// # Errors
/// The database's.
pub async fn invalidate(
    store: &Store,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn IdGen>,
    operator: &PrincipalRef,
    lost: &[Pending],
) -> Result<usize, StoreError> {
    let mut count = 0;
    for one in lost {
        count +=
            usize::from(store::invalidate_unscoped(store, clock.clone(), ids.clone(), operator, one).await?);
    }
    Ok(count)
}
