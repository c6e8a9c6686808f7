//! Audit records of the gateway: numbered, kept in memory, shipped in order.
//!
//! The gateway has no database. What it records are reads and refusals; every change is recorded by the service that
//! makes it, in the transaction that makes it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use opentelemetry::metrics::Counter;
use pavior_core::audit::{Actor, AuditClass, AuditEvent, Cause, Object, Outcome, Phase};
use pavior_core::clock::Clock;
use pavior_core::id::IdGen;
use pavior_rpc::BoxError;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::resource::PLATFORM_ID;

const BATCH: usize = 500;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// How long the last records may take when the process ends.
const FLUSH: Duration = Duration::from_secs(5);

/// A record with its place in the gateway's sequence.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) organization: String,
    pub(crate) sequence: i64,
    pub(crate) event: AuditEvent,
}

/// Sends records to the audit service; repeated until it succeeds.
pub(crate) type Ship = Arc<dyn Fn(Vec<Row>) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

pub(crate) struct Trail {
    state: Mutex<State>,
    wake: Notify,
    capacity: usize,
    window: time::Duration,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
    dropped: Counter<u64>,
}

#[derive(Default)]
struct State {
    rows: VecDeque<Row>,
    last: i64,
    /// Requests without valid credentials that are not recorded yet, by reason.
    refusals: BTreeMap<&'static str, u64>,
    refusals_recorded: Option<OffsetDateTime>,
}

impl Trail {
    pub(crate) fn new(
        capacity: usize,
        window: time::Duration,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdGen>,
        dropped: Counter<u64>,
    ) -> Self {
        Self { state: Mutex::default(), wake: Notify::new(), capacity, window, clock, ids, dropped }
    }

    /// Queues a record; false when there is no room. A record that is dropped gets no number: the sequence has no gap.
    pub(crate) fn push(&self, organization: &str, event: AuditEvent) -> bool {
        let kept = self.put(&mut self.lock(), organization, event);
        self.wake.notify_one();
        kept
    }

    /// Counts a request without valid credentials. They are recorded together, so that nobody can flood the log.
    pub(crate) fn refused(&self, reason: &'static str) {
        let now = self.clock.now();
        let mut state = self.lock();
        *state.refusals.entry(reason).or_default() += 1;
        self.record_refusals(&mut state, now);
        drop(state);
        self.wake.notify_one();
    }

    /// Ships until cancelled, then tries once more.
    pub(crate) async fn run(self: Arc<Self>, ship: Ship, cancel: CancellationToken) -> anyhow::Result<()> {
        let tick = Duration::try_from(self.window).unwrap_or(RETRY_LAST);
        loop {
            self.ship_all(&ship, &cancel).await;
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(tick) => self.flush_refusals(),
            }
        }
        self.force_refusals(&mut self.lock());
        let patience = CancellationToken::new();
        let left = tokio::time::timeout(FLUSH, self.ship_all(&ship, &patience)).await;
        let left = left.map_or_else(|_| self.lock().rows.len(), |()| 0);
        if left > 0 {
            self.dropped.add(u64::try_from(left).unwrap_or(u64::MAX), &[]);
            tracing::error!(records = left, "audit records could not be shipped before the end");
        }
        Ok(())
    }

    /// Ships what is there, batch by batch; a batch leaves the queue when it is acknowledged.
    async fn ship_all(&self, ship: &Ship, cancel: &CancellationToken) {
        let mut wait = RETRY_FIRST;
        loop {
            let batch: Vec<Row> = self.lock().rows.iter().take(BATCH).cloned().collect();
            let Some(last) = batch.last().map(|row| row.sequence) else { return };
            match ship(batch).await {
                Ok(()) => {
                    wait = RETRY_FIRST;
                    self.acknowledged(last);
                }
                Err(error) => {
                    tracing::warn!(%error, "audit records could not be shipped, trying again");
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        () = tokio::time::sleep(wait) => wait = (wait * 2).min(RETRY_LAST),
                    }
                }
            }
        }
    }

    fn acknowledged(&self, last: i64) {
        let mut state = self.lock();
        while state.rows.front().is_some_and(|row| row.sequence <= last) {
            state.rows.pop_front();
        }
    }

    fn put(&self, state: &mut State, organization: &str, event: AuditEvent) -> bool {
        if state.rows.len() >= self.capacity {
            self.dropped.add(1, &[]);
            tracing::error!(
                action = event.action,
                "audit record dropped: too many wait for the audit service"
            );
            return false;
        }
        state.last += 1;
        let sequence = state.last;
        state.rows.push_back(Row { organization: organization.to_owned(), sequence, event });
        true
    }

    fn flush_refusals(&self) {
        let now = self.clock.now();
        self.record_refusals(&mut self.lock(), now);
    }

    fn record_refusals(&self, state: &mut State, now: OffsetDateTime) {
        let due = state.refusals_recorded.is_none_or(|last| now - last >= self.window);
        if due && !state.refusals.is_empty() {
            state.refusals_recorded = Some(now);
            self.force_refusals(state);
        }
    }

    fn force_refusals(&self, state: &mut State) {
        let refusals = std::mem::take(&mut state.refusals);
        if refusals.is_empty() {
            return;
        }
        let total: u64 = refusals.values().sum();
        let reasons: Vec<String> = refusals.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        let event = AuditEvent {
            event_id: self.ids.uuid(),
            time: self.clock.now(),
            class: AuditClass::C,
            action: "gateway.authentication.refuse".to_owned(),
            phase: Phase::Outcome,
            actor: Actor { kind: "anonymous".to_owned(), ..Actor::default() },
            object: Object::default(),
            cause: Cause::default(),
            decision: None,
            outcome: Outcome {
                status: "denied".to_owned(),
                code: "UNAUTHENTICATED".to_owned(),
                duration_ms: 0,
            },
            change: None,
            summary: format!("{total} requests without valid credentials: {}", reasons.join(", ")),
        };
        self.put(state, PLATFORM_ID, event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock can leave it half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use pavior_core::clock::ManualClock;
    use pavior_core::id::SeededIds;
    use tokio::sync::mpsc;

    use super::*;

    fn trail(capacity: usize) -> (Arc<Trail>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        let counter = opentelemetry::metrics::MeterProvider::meter(
            &opentelemetry::metrics::noop::NoopMeterProvider::new(),
            "test",
        )
        .u64_counter("dropped")
        .build();
        let ids = Arc::new(SeededIds::new(1));
        (Arc::new(Trail::new(capacity, time::Duration::seconds(60), clock.clone(), ids, counter)), clock)
    }

    fn event(summary: &str) -> AuditEvent {
        AuditEvent {
            event_id: SeededIds::new(2).uuid(),
            time: ManualClock::default().now(),
            class: AuditClass::B,
            action: "a.b.c".to_owned(),
            phase: Phase::Outcome,
            actor: Actor::default(),
            object: Object::default(),
            cause: Cause::default(),
            decision: None,
            outcome: Outcome::default(),
            change: None,
            summary: summary.to_owned(),
        }
    }

    /// A place that records arrive at, which fails as often as it is told to.
    fn place(failures: usize) -> (Ship, mpsc::UnboundedReceiver<Row>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let left = Arc::new(std::sync::atomic::AtomicUsize::new(failures));
        let ship: Ship = Arc::new(move |rows| {
            use std::sync::atomic::Ordering::SeqCst;
            let failed = left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            if !failed {
                rows.into_iter().for_each(|row| sender.send(row).unwrap());
            }
            Box::pin(std::future::ready(if failed { Err("down".into()) } else { Ok(()) }))
        });
        (ship, receiver)
    }

    #[tokio::test]
    async fn records_arrive_in_order_without_gaps_although_the_place_fails() {
        let (trail, _) = trail(3);
        for summary in ["a", "b", "c", "too many"] {
            assert_eq!(trail.push("acme", event(summary)), summary != "too many");
        }
        let (ship, mut arrived) = place(2);
        let cancel = CancellationToken::new();
        let task = tokio::spawn(trail.clone().run(ship, cancel.clone()));
        for (number, summary) in [(1, "a"), (2, "b"), (3, "c")] {
            let row = arrived.recv().await.unwrap();
            assert_eq!((row.sequence, row.event.summary.as_str()), (number, summary));
        }
        // The task is between batches now; the next one follows without a gap, and shutdown loses nothing.
        tokio::task::yield_now().await;
        trail.push("acme", event("d"));
        cancel.cancel();
        task.await.unwrap().unwrap();
        assert_eq!(arrived.recv().await.unwrap().sequence, 4);
    }

    #[tokio::test]
    async fn refusals_are_recorded_together_and_not_more_often_than_the_window() {
        let (trail, clock) = trail(10);
        for _ in 0..1000 {
            trail.refused("missing");
        }
        clock.advance(Duration::from_secs(60));
        trail.refused("expired");
        let (ship, mut arrived) = place(0);
        let cancel = CancellationToken::new();
        cancel.cancel();
        trail.run(ship, cancel).await.unwrap();
        let first = arrived.recv().await.unwrap();
        assert_eq!(first.organization, "-");
        assert_eq!(first.event.summary, "1 requests without valid credentials: missing 1");
        let second = arrived.recv().await.unwrap();
        assert_eq!(second.event.summary, "1000 requests without valid credentials: expired 1, missing 999");
        assert!(arrived.try_recv().is_err());
    }
}
