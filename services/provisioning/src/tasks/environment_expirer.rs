//! Takes environments down whose time is over.

use std::time::Duration;

use pavior_runtime::Task;

use crate::app::App;

/// Looks at the timers.
pub(crate) fn task(app: App) -> Task {
    Task::new("environment_expirer", move |cancel| async move {
        let pause = Duration::from_millis(app.config.expiry_poll_ms);
        while super::compared(&app, &cancel).await {
            if let Err(error) = app.expire_environments().await {
                tracing::warn!(%error, "expired environments could not be looked for and will be again");
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    })
}
