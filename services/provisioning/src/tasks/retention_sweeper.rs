//! Forgets what is older, or more, than is to be kept.

use std::time::Duration;

use pavior_runtime::Task;

use crate::app::App;
use crate::store::Swept;

/// Sweeps now and then, and at once again as long as there is something to sweep.
pub(crate) fn task(app: App) -> Task {
    Task::new("retention_sweeper", move |cancel| async move {
        let retention = app.config.retention();
        let pause = Duration::from_millis(app.config.sweep_ms);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            while !cancel.is_cancelled() {
                match app.db.sweep_unscoped(&retention).await {
                    Ok(swept) if swept == Swept::default() => break,
                    Ok(swept) => tracing::info!(?swept, "what was kept long enough is forgotten"),
                    Err(error) => {
                        tracing::warn!(%error, "what was kept long enough could not be forgotten yet");
                        break;
                    }
                }
            }
            if let Err(error) = app.keep_artifacts().await {
                tracing::warn!(%error, "the drivers could not be told yet which artifacts are needed");
            }
        }
    })
}
