//! Looks at what people have said about operations that wait.

use std::time::Duration;

use pavior_runtime::Task;

use crate::app::App;

/// Asks policy again and again.
pub(crate) fn task(app: App) -> Task {
    Task::new("approval_poller", move |cancel| async move {
        let pause = Duration::from_millis(app.config.approval_poll_ms);
        while super::compared(&app, &cancel).await {
            if let Err(error) = app.look_at_approvals().await {
                tracing::warn!(%error, "approvals could not be looked at and will be again");
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    })
}
