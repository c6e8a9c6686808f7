//! Expires approvals that are due, also those that nobody reads.

use std::time::Duration;

use pavior_runtime::Task;

use crate::app::App;
use crate::error::Error;
use crate::store;

pub(super) fn task(app: App) -> Task {
    Task::new("approval_reaper", move |cancel| async move {
        let pause = Duration::from_millis(app.config.expiry_interval_ms);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            if let Err(error) = round(&app).await {
                tracing::warn!(%error, "approvals will be looked through again");
            }
        }
    })
}

async fn round(app: &App) -> Result<(), Error> {
    for organization in
        store::due_organizations_unscoped(app.kernel.store.read(), app.kernel.clock.now()).await?
    {
        let count = app.expire_due(&organization).await?;
        tracing::info!(organization, count, "approvals have expired");
    }
    Ok(())
}
