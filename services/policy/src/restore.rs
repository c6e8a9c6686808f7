//! For `pavior restore`: finds and invalidates approvals of operations that were lost.

use std::sync::Arc;

use pavior_core::audit::PrincipalRef;
use pavior_core::clock::Clock;
use pavior_core::id_gen::IdGen;
use pavior_store::outbox::{Limits, OutboxContext};
use pavior_store::{Store, StoreError};

pub use crate::store::Pending;
use crate::{ROLE, store};

/// All pending approvals of operations.
///
/// # Errors
/// The database's.
pub async fn pending(store: &Store) -> Result<Vec<Pending>, StoreError> {
    store::pending_unscoped(store).await
}

/// Invalidates the approvals of lost operations, so that nobody votes on them. Returns how many were still pending.
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
    let mut outbox = OutboxContext::new(store, ROLE, "restore", clock.clone());
    outbox.limits = Limits::endless();
    let mut count = 0;
    for one in lost {
        let done = store::invalidate_unscoped(store, &outbox, ids.clone(), operator, one);
        count += usize::from(done.await?);
    }
    Ok(count)
}
