//! Background work that every service with resources has. The delivery of the outbox is `pavior_relay::outbox_relay`.

use std::time::Duration;

use pavior_runtime::Task;
use pavior_store::idempotency;

use crate::Kernel;
use crate::table::deleted::Purge;

/// Forgets the answers that were kept for repeated requests once they are a day old, and what is deleted once it is no
/// longer kept.
pub fn sweeper(kernel: &Kernel, interval: Duration, purges: Vec<Purge>) -> Task {
    let (store, clock, keeping) = (kernel.store.clone(), kernel.clock.clone(), kernel.keeping);
    Task::new("sweeper", move |cancel| async move {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(interval) => {}
            }
            match idempotency::sweep(&store, clock.now()).await {
                Ok(swept) => tracing::debug!(swept, "kept answers swept"),
                // What is not swept now is swept later.
                Err(error) => tracing::warn!(%error, "kept answers could not be swept"),
            }
            for purge in &purges {
                match purge.run(&store, &*clock, keeping).await {
                    Ok(purged) => tracing::debug!(purged, "what was deleted is purged"),
                    Err(error) => tracing::warn!(%error, "what was deleted could not be purged"),
                }
            }
        }
    })
}
