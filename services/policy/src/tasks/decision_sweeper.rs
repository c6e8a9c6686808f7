//! Deletes decisions beyond their retention, and the oldest of organizations with too many.

use std::sync::Arc;
use std::time::Duration;

use pavior_runtime::Task;
use pavior_store::StoreError;
use time::OffsetDateTime;

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
    let old = app.kernel.clock.now() - app.config.decision_retention();
    sweep(app, None, old).await?;
    for (organization, until) in
        store::crowded_unscoped(app.kernel.store.read(), app.config.max_decisions).await?
    {
        sweep(app, Some(organization), until).await?;
    }
    Ok(())
}

/// Deletes decisions up to a time in batches, so that every transaction is short.
async fn sweep(app: &App, organization: Option<String>, until: OffsetDateTime) -> Result<(), StoreError> {
    let organization: Option<Arc<str>> = organization.map(Arc::from);
    loop {
        let organization = organization.clone();
        let more = app.kernel.store.upkeep("decisions that are old enough to be forgotten", move |tx| {
            let organization = organization.clone();
            Box::pin(async move { store::sweep_decisions_unscoped(tx, organization.as_deref(), until).await })
        });
        if !more.await? {
            return Ok(());
        }
    }
}
