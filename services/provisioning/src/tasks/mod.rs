//! Background work.

mod approval_poller;
mod driver_reconciler;
mod engine_runner;
mod environment_expirer;
mod retention_sweeper;

use pavior_runtime::Task;
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// Waits until the database is known not to be an older copy, whose timers and answers are long over. False when the
/// process ends.
async fn compared(app: &App, cancel: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = cancel.cancelled() => false,
        () = app.db.history().fitting() => true,
    }
}

/// Every task of the service.
pub(crate) fn all(app: &App) -> Vec<Task> {
    vec![
        engine_runner::task(app.clone()),
        driver_reconciler::task(app.clone()),
        approval_poller::task(app.clone()),
        environment_expirer::task(app.clone()),
        retention_sweeper::task(app.clone()),
    ]
}
