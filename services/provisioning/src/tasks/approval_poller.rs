//! Looks at what people have said about operations that wait.

use pavior_runtime::Task;

use crate::app::App;

/// Asks policy again and again.
pub(crate) fn task(app: &App) -> Task {
    super::periodic("approval_poller", app, app.config.approval_poll_ms, |app| async move {
        if let Err(error) = app.look_at_approvals().await {
            tracing::warn!(%error, "approvals could not be looked at and will be again");
        }
    })
}
