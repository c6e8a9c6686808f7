//! Background work that every service with request ids has. The delivery of the outbox is `pavior_relay::outbox_relay`.

use std::sync::Arc;
use std::time::Duration;

use pavior_core::clock::Clock;
use pavior_runtime::Task;
use pavior_store::{Store, idempotency};

/// Forgets the answers that were kept for repeated requests once they are a day old.
pub fn idempotency_sweeper(store: Store, clock: Arc<dyn Clock>, interval: Duration) -> Task {
    Task::new("idempotency_sweeper", move |cancel| async move {
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
        }
    })
}
