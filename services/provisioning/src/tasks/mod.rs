//! Background work.

mod approval_poller;
mod engine_runner;
mod environment_expirer;
mod idempotency_sweeper;
mod outbox_shipper;

use pavior_rpc::audit::AuditSink;
use pavior_runtime::Task;

use crate::app::App;

/// Every task of the service.
pub(crate) fn all(app: &App, sink: AuditSink) -> Vec<Task> {
    vec![
        engine_runner::task(app.clone()),
        approval_poller::task(app.clone()),
        environment_expirer::task(app.clone()),
        idempotency_sweeper::task(app.clone()),
        outbox_shipper::task(app.clone(), sink),
    ]
}
