//! Background work.

mod approval_poller;
mod driver_reconciler;
mod engine_runner;
mod environment_expirer;
mod retention_sweeper;

use std::time::Duration;

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

/// Does something again and again, once the database is known not to be an older copy.
fn periodic<F>(name: &'static str, app: &App, pause_ms: u64, work: impl Fn(App) -> F + Send + 'static) -> Task
where
    F: Future<Output = ()> + Send,
{
    let app = app.clone();
    Task::new(name, move |cancel| async move {
        while compared(&app, &cancel).await {
            work(app.clone()).await;
            // Nothing tells that there is work: it depends on the time, or on what is outside of the database.
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
            }
        }
        Ok(())
    })
}

/// Every task of the service.
pub(crate) fn all(app: &App) -> Vec<Task> {
    vec![
        engine_runner::task(app.clone()),
        driver_reconciler::task(app.clone()),
        approval_poller::task(app),
        environment_expirer::task(app),
        retention_sweeper::task(app.clone()),
    ]
}
