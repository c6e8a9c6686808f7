//! Delivers audit events to the audit service.

use std::sync::Arc;

use pavior_rpc::audit::{AuditSink, Producer};
use pavior_runtime::Task;
use pavior_store::outbox::{BoxError, Limits, OutboxRow, Relay};

use crate::app::App;
use crate::store::SERVICE;

/// In order, at least once.
pub(crate) fn task(app: App, sink: AuditSink) -> Task {
    Task::new("outbox_shipper", move |cancel| async move {
        let relay = Relay::new(app.db.store().clone(), SERVICE, Limits::default());
        let sink = Arc::new(sink);
        relay
            .run(cancel, move |rows: Vec<OutboxRow>| {
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
    sink.append(&producer, rows.into_iter().map(|row| (row.seq, row.event)).collect()).await?;
    Ok(())
}
