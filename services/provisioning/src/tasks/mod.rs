//! Background work.

mod approval_poller;
mod driver_reconciler;
mod engine_runner;
mod environment_expirer;
mod retention_sweeper;

use pavior_runtime::Task;

use crate::app::App;

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
