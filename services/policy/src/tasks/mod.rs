//! Background work.

mod approval_reaper;
mod decision_sweeper;
mod decision_writer;

use std::time::Duration;

use pavior_resource::idempotency_sweeper;
use pavior_runtime::Task;

use crate::app::App;

/// How often expired answers of repeated requests are deleted.
const ANSWER_SWEEP: Duration = Duration::from_secs(3_600);

/// All background tasks.
pub(crate) fn all(app: &App) -> Vec<Task> {
    vec![
        approval_reaper::task(app.clone()),
        decision_writer::task(app.clone()),
        decision_sweeper::task(app.clone()),
        idempotency_sweeper(app.kernel.store.clone(), app.kernel.clock.clone(), ANSWER_SWEEP),
    ]
}
