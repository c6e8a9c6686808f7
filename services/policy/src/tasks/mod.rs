//! Background work.

mod approval_reaper;
mod decision_writer;
mod record_sweeper;

use pavior_runtime::Task;

use crate::app::App;

/// Everything that runs beside the service.
pub(crate) fn all(app: &App) -> Vec<Task> {
    vec![
        approval_reaper::task(app.clone()),
        decision_writer::task(app.clone()),
        record_sweeper::task(app.clone()),
    ]
}
