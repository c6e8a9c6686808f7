//! Removes decisions that are old.

use std::time::Duration;

use pavior_runtime::Task;
use pavior_store::StoreError;

use crate::app::App;
use crate::store;

const PAUSE: Duration = Duration::from_secs(3_600);

pub(super) fn task(app: App) -> Task {
    Task::new("decision_sweeper", move |cancel| async move {
        loop {
            if let Err(error) = round(&app).await {
                tracing::warn!(%error, "old records will be swept later");
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    })
}

async fn round(app: &App) -> Result<(), StoreError> {
    let now = app.kernel.clock.now();
    let before = now - time::Duration::days(i64::from(app.config.decision_retention_days));
    app.kernel
        .store
        .upkeep("decisions that are old enough to be forgotten", move |tx| {
            Box::pin(store::delete_decisions_unscoped(tx, before))
        })
        .await?;
    Ok(())
}
