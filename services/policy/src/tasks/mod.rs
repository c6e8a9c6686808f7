//! Background work.

mod approval_reaper;
mod decision_writer;
mod outbox_relay;
mod record_sweeper;

use pavior_rpc::audit::AuditSink;
use pavior_runtime::Task;

use crate::app::App;

/// Everything that runs beside the service.
pub(crate) fn all(app: &App, sink: AuditSink) -> Vec<Task> {
    vec![
        approval_reaper::task(app.clone()),
        decision_writer::task(app.clone()),
        outbox_relay::task(app.clone(), sink),
        record_sweeper::task(app.clone()),
    ]
}
