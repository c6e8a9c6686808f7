//! Tells drivers what is declared, and asks how they are.

use std::time::Duration;

use pavior_runtime::Task;

use crate::app::App;

/// At the start as soon as the engine has looked at what a former process left, then again and again.
pub(crate) fn task(app: App) -> Task {
    Task::new("driver_reconciler", move |cancel| async move {
        let pause = Duration::from_millis(app.config.driver_poll_ms);
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            () = app.engine.recovered() => {}
        }
        while !cancel.is_cancelled() {
            let round = async {
                if let Err(error) = app.reconcile_drivers().await {
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
