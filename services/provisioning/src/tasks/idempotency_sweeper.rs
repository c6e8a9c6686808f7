//! Forgets answers that are older than a day.

use std::time::Duration;

use pavior_runtime::Task;

use crate::app::App;

const HOUR: Duration = Duration::from_secs(3_600);

/// Sweeps once an hour.
pub(crate) fn task(app: App) -> Task {
    Task::new("idempotency_sweeper", move |cancel| async move {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(HOUR) => {}
            }
            if let Err(error) = pavior_store::idempotency::sweep(app.db.store(), app.db.now()).await {
                tracing::warn!(%error, "old answers could not be forgotten");
            }
        }
    })
}
