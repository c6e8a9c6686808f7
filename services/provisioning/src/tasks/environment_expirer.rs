//! Takes environments down whose time is over.

use pavior_runtime::Task;

use crate::app::App;

/// Looks at the timers.
pub(crate) fn task(app: &App) -> Task {
    super::periodic("environment_expirer", app, app.config.expiry_poll_ms, |app| async move {
        if let Err(error) = app.expire_environments().await {
            tracing::warn!(%error, "expired environments could not be looked for and will be again");
        }
    })
}
