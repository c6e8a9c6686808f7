//! Ships audit events to the audit service, in order and at least once.

use pavior_rpc::audit::{AuditSink, Producer};
use pavior_runtime::Task;
use pavior_store::Store;
use pavior_store::outbox::{BoxError, Limits, OutboxRow, Relay};

/// The task.
pub(crate) fn outbox_relay(store: Store, sink: AuditSink, limits: Limits) -> Task {
    Task::new("outbox_relay", move |cancel| async move {
        let relay = Relay::new(store, crate::ROLE, limits);
        relay
            .run(cancel, move |rows| {
                let sink = sink.clone();
                Box::pin(async move { ship(&sink, rows).await })
            })
            .await;
        Ok(())
    })
}

async fn ship(sink: &AuditSink, rows: Vec<OutboxRow>) -> Result<(), BoxError> {
    let Some(first) = rows.first() else { return Ok(()) };
    let producer = Producer {
        service: first.service.clone(),
        instance: first.instance.clone(),
        epoch: first.epoch.to_string(),
    };
    let last = rows.last().map(|row| row.seq).unwrap_or_default();
    let events = rows.into_iter().map(|row| (row.seq, row.event)).collect();
    let durable = sink.append(&producer, events).await?;
    // What is not durable yet must stay here.
    if durable >= last { Ok(()) } else { Err(format!("event {durable} is durable, {last} is not").into()) }
}
