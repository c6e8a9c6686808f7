//! pavior-relay: how the audit events of every service with a database get to the audit service.
//!
//! Owns the one task that delivers an outbox, and what its health is. Must never hold a rule of one service, or let an
//! event go that was not acknowledged.
//!
//! Entry points: [`outbox_relay`], [`compare_histories`], and [`problem`], what a caller is told of an error of the
//! database, a full outbox included.

mod history;

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Gauge, Meter};
use pavior_rpc::audit::{AuditSink, Producer, Row, ShipError, Shipped};
use pavior_rpc::{ErrorReason, Problem};
use pavior_runtime::{Cause, HealthCheck, Task, Unmet};
use pavior_store::outbox::{self, BoxError, Delivery, OutboxContext, OutboxRow, Progress, Relay};
use pavior_store::{ErrorKind, Store, StoreError};

pub use history::{compare_histories, compared_check, known_to_fit};

/// How long a check of a service that has just started waits for the first comparison with the audit log: less than a
/// check may take. Nobody is told that it is ready a moment before it is found to be an older copy.
const FIRST_COMPARISON: Duration = Duration::from_millis(1_500);

/// The delivery of one outbox.
#[derive(Debug)]
pub struct OutboxRelay {
    /// Delivers until cancelled.
    pub task: Task,
    /// Fails while the outbox stands still or its history is not that of the audit log, and says why.
    pub check: HealthCheck,
}

/// Delivers the outbox of the service that `context` names, from `store` to `sink`. `check` is the name of the health
/// check, for example `catalog outbox`.
pub fn outbox_relay(
    store: Store,
    context: &OutboxContext,
    sink: AuditSink,
    meter: &Meter,
    check: &'static str,
) -> OutboxRelay {
    let relay = Relay::new(store.clone(), context.service.clone(), context.limits);
    let (histories, compared, log) = (store.clone(), context.clone(), sink.clone());
    let watch = Watch {
        store,
        context: context.clone(),
        progress: relay.progress(),
        rows: meter.i64_gauge("pavior.outbox.rows").with_description("audit events that wait").build(),
        age: meter
            .f64_gauge("pavior.outbox.age")
            .with_unit("s")
            .with_description("how long the oldest audit event waits")
            .build(),
    };
    let check = HealthCheck::new(check, move || {
        let watch = watch.clone();
        async move { watch.check().await }
    });
    let task = Task::new("outbox_relay", move |cancel| async move {
        let deliver = relay.run(cancel.clone(), move |rows| {
            let sink = sink.clone();
            Box::pin(async move { ship(&sink, rows).await })
        });
        tokio::join!(deliver, history::watch(histories, compared, log, cancel));
        Ok(())
    });
    OutboxRelay { task, check }
}

async fn ship(sink: &AuditSink, rows: Vec<OutboxRow>) -> Delivery {
    let Some(first) = rows.first() else { return Delivery::default() };
    let producer = Producer {
        service: first.service.clone(),
        instance: first.instance.clone(),
        epoch: first.epoch.to_string(),
    };
    let rows = rows.into_iter().map(|row| {
        let OutboxRow { organization, seq, event, .. } = row;
        Row { organization, sequence: seq, event }
    });
    let Shipped { acknowledged, error } = sink.ship(&producer, rows.collect()).await;
    Delivery { acknowledged, error: error.map(|error: ShipError| Box::new(error) as BoxError) }
}

/// What a caller is told of an error of the database, without a word of the database's own. What is an operator's to
/// know is logged.
pub fn problem(error: &StoreError) -> Problem {
    if let Some(refused) = refusal(error) {
        return refused;
    }
    let cause = std::error::Error::source(error).map(ToString::to_string);
    match error.kind() {
        ErrorKind::Unavailable => {
            tracing::warn!(%error, cause, "database unavailable");
            Problem::unavailable("the database does not answer").with("dependency", "database")
        }
        ErrorKind::Unknown => {
            tracing::error!(%error, cause, "database failed during a commit");
            let message = "the database failed before it said whether the change is kept: repeat the call with the \
                           same request_id";
            Problem::unavailable(message)
                .with_reason(ErrorReason::OutcomeUnknown)
                .with("dependency", "database")
        }
        ErrorKind::Serialization | ErrorKind::Unique => {
            let message = "others are changing the same resources: repeat the call";
            Problem::aborted(ErrorReason::ResourceBusy, message)
        }
        ErrorKind::Corrupt | ErrorKind::Other => Problem::internal_error(error),
    }
}

/// What the caller of a change is told when its record cannot be taken; nothing for other errors.
fn refusal(error: &StoreError) -> Option<Problem> {
    const LATER: Duration = Duration::from_secs(5);
    match error {
        StoreError::OutboxFull { .. } => Some(
            Problem::unavailable(error.to_string())
                .with_reason(ErrorReason::AuditUnavailable)
                .retry_in(LATER),
        ),
        StoreError::Apart(_) => Some(Problem::restore_needed(error.to_string())),
        StoreError::OrganizationOutboxFull { organization, limit_rows, limit_bytes, .. } => Some(
            Problem::resource_exhausted(ErrorReason::AuditBacklog, error.to_string())
                .with("organization", organization.as_str())
                .with("limitEvents", limit_rows.to_string())
                .with("limitBytes", limit_bytes.to_string())
                .retry_in(LATER),
        ),
        _ => None,
    }
}

/// Looks at an outbox from outside of its relay, which may hang.
#[derive(Clone)]
struct Watch {
    store: Store,
    context: OutboxContext,
    progress: Progress,
    rows: Gauge<i64>,
    age: Gauge<f64>,
}

impl Watch {
    async fn check(&self) -> Result<(), Unmet> {
        let OutboxContext { service, limits, clock, .. } = &self.context;
        let history = self.context.history();
        let lag = outbox::lag(&self.store, service, clock.now()).await.map_err(|error| error.to_string())?;
        let oldest = lag.oldest.unwrap_or_default();
        let service = [KeyValue::new("service", service.clone())];
        self.rows.record(lag.rows, &service);
        self.age.record(oldest.as_secs_f64(), &service);
        // The audit service may be away: then the age of what waits tells.
        let _ = tokio::time::timeout(FIRST_COMPARISON, history.compared()).await;
        if let Some(apart) = history.apart() {
            return Err(Unmet::because(Cause::RestoreNeeded, format!("{apart}; {}", apart.remedy())));
        }
        if oldest <= limits.max_stall {
            return Ok(());
        }
        let why = self.progress.failure();
        let why = why.as_deref().unwrap_or("the audit service answers, and more is made than is delivered");
        let waits = format!("{} audit events wait, the oldest for {} s: {why}", lag.rows, oldest.as_secs());
        Err(Unmet::because(Cause::NotDelivered, waits))
    }
}
