//! Background work.

mod approval_reaper;
mod decision_sweeper;
mod decision_writer;

use std::time::Duration;

use pavior_resource::sweeper;
use pavior_runtime::Task;

use crate::app::App;
use crate::store;

/// How often answers of repeated requests, and what is deleted, are looked through for what is kept no longer.
const SWEEP: Duration = Duration::from_secs(3_600);

/// All background tasks.
pub(crate) fn all(app: &App) -> Vec<Task> {
    vec![
        approval_reaper::task(app.clone()),
        decision_writer::task(app.clone()),
        decision_sweeper::task(app.clone()),
        sweeper(&app.kernel, SWEEP, store::purges()),
    ]
}
