//! Watches that the numbers of an outbox and those of the audit log are of one history: at start, and again and again,
//! because either database may be set back while the other side runs.

use std::time::Duration;

use pavior_rpc::Problem;
use pavior_rpc::audit::{AuditSink, Producer};
use pavior_runtime::HealthCheck;
use pavior_store::outbox::{self, BoxError, History, OutboxContext, Recorded, Standing};
use pavior_store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

/// How often histories that were compared are compared again.
const EVERY: Duration = Duration::from_secs(15);
/// The first pause and the longest while the audit service does not answer.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The longest that a start waits for the comparison.
const PATIENCE: Duration = Duration::from_secs(2);

/// Compares the histories before a service begins. When the audit service does not answer, the service begins: what it
/// records waits in the outbox, and the histories are compared when audit is back. What acts by itself waits for that,
/// see `History::fitting`.
pub async fn compare_histories(store: &Store, context: &OutboxContext, sink: &AuditSink) {
    match tokio::time::timeout(PATIENCE, look(store, context, sink)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::debug!(service = context.service, error, "the audit log cannot be compared with yet")
        }
        Err(_) => tracing::debug!(service = context.service, "the audit service does not answer yet"),
    }
}

/// Compares until cancelled.
pub(crate) async fn watch(store: Store, context: OutboxContext, sink: AuditSink, cancel: CancellationToken) {
    let mut pause = PAUSES.0;
    while !cancel.is_cancelled() {
        let looked = tokio::select! {
            () = cancel.cancelled() => return,
            looked = look(&store, &context, &sink) => looked,
        };
        pause = match looked {
            Ok(true) => EVERY,
            Ok(false) => PAUSES.0,
            Err(error) => {
                tracing::debug!(service = context.service, error, "the audit log cannot be compared with");
                (pause * 2).min(PAUSES.1)
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Compares once; false when a new epoch began meanwhile.
async fn look(store: &Store, context: &OutboxContext, sink: &AuditSink) -> Result<bool, String> {
    let plain = |error: BoxError| error.to_string();
    let OutboxContext { service, instance, .. } = context;
    let history = context.history();
    let before = outbox::position(store, service).await.map_err(|error| plain(error.into()))?;
    let producer = Producer {
        service: service.clone(),
        instance: instance.clone(),
        epoch: before.epoch.unwrap_or(0).to_string(),
    };
    let state = sink.state(&producer).await.map_err(|status| status.message().to_owned())?;
    let there = Recorded {
        last: state.last_sequence,
        last_event: state.last_event_id.parse().ok(),
        newest_epoch: state.newest_epoch.parse().ok(),
    };
    let standing =
        outbox::compare(store, service, &before, &there).await.map_err(|error| plain(error.into()))?;
    let apart = match standing {
        Standing::Moved => return Ok(false),
        Standing::Fits => None,
        Standing::Apart(apart) => Some(apart),
    };
    if history.apart() != apart {
        match &apart {
            Some(apart) => {
                let remedy = apart.remedy();
                tracing::error!(service, %apart, remedy, "changes are refused until an operator has acted");
            }
            None => tracing::info!(service, "the histories of the outbox and of the audit log fit again"),
        }
    }
    history.set(apart);
    Ok(true)
}

/// Whether a database was compared with the audit log, with what does not go on before: reads do. That they do not fit is
/// the outbox's to say, which gives a start the time to compare.
pub fn compared_check(store: &Store, name: &'static str, waits: &'static str) -> HealthCheck {
    let history = store.history().clone();
    HealthCheck::new(name, move || {
        let history = history.clone();
        async move {
            // Where it is taking place, what comes of it is what is said.
            let _ = tokio::time::timeout(crate::FIRST_COMPARISON, history.compared()).await;
            match history.fits() || history.apart().is_some() {
                true => Ok(()),
                false => Err(format!("the audit log was not compared with yet: {waits}")),
            }
        }
    })
    .degrades()
}

/// Whether a database is known to be no older copy, for who answers only then.
///
/// # Errors
/// RESTORE_NEEDED when it, or the audit log, is an older copy, and UNAVAILABLE until they have been compared.
pub fn known_to_fit(history: &History) -> Result<(), Problem> {
    match history.apart() {
        Some(apart) => Err(crate::problem(&StoreError::Apart(apart))),
        None if history.fits() => Ok(()),
        None => Err(Problem::unavailable("the database has not been compared with the audit log yet")),
    }
}
