//! Ships audit events to the audit service.

use pavior_rpc::audit::{AuditSink, Producer};
use pavior_runtime::Task;
use pavior_store::outbox::{BoxError, OutboxRow, Relay};

use crate::app::App;

pub(super) fn task(app: App, sink: AuditSink) -> Task {
    Task::new("outbox_relay", move |cancel| async move {
        let relay = Relay::new(app.store.clone(), app.outbox.service.clone(), app.outbox.limits);
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
    let rows = rows.into_iter().map(|row| (row.seq, row.event)).collect();
    sink.append(&producer, rows).await?;
    Ok(())
}
