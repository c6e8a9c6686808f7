//! Tells drivers what is declared, and asks how they are.

use std::time::Duration;

use pavior_runtime::Task;

use crate::app::App;

/// How long a start waits for the audit service before drivers are told what is declared for all that.
const PATIENCE: Duration = Duration::from_secs(60);

/// At the start as soon as the engine has looked at what a former process left, and the database is known not to be an
/// older copy; then again and again. While the audit service is away the wait has an end: drivers then bring back what
/// ran before and is still declared, which begins nothing new.
pub(crate) fn task(app: App) -> Task {
    Task::new("driver_reconciler", move |cancel| async move {
        let pause = Duration::from_millis(app.config.driver_poll_ms);
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            () = app.engine.recovered() => {}
        }
        let history = app.db.history();
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            _ = tokio::time::timeout(PATIENCE, history.fitting()) => {}
        }
        while !cancel.is_cancelled() {
            let round = async {
                if history.apart().is_some() {
                    tracing::debug!("drivers are not told what an older copy declares");
                } else if let Err(error) = app.reconcile_drivers().await {
                    tracing::warn!(%error, "drivers could not be told what is declared and will be again");
                }
                tokio::time::sleep(pause).await;
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = round => {}
            }
        }
        Ok(())
    })
}
