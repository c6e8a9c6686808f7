//! Audit records of the gateway: numbered, kept in memory, shipped in order.
//!
//! The gateway has no database. What it records are reads and refusals; every change is recorded by the service that
//! makes it, in the transaction that makes it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use opentelemetry::metrics::Counter;
use pavior_core::audit::{AuditClass, AuditEvent, Code, Outcome, PrincipalKind, PrincipalRef, Status};
use pavior_core::clock::Clock;
use pavior_core::id_gen::IdGen;
use pavior_core::principal::{GATEWAY, INSTALLATION, service_name};
use pavior_proto::pavior::audit::internal::v1::RefusalReason;
use pavior_rpc::audit::{Row, ShipError, Shipped};
use pavior_rpc::problem::from_status;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const BATCH: usize = 500;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// What an organization may have in the queue whatever its size.
const MIN_SHARE: usize = 100;
/// How long a record may wait before the gateway says that they stand still.
const MAX_STALL: time::Duration = time::Duration::seconds(30);
/// How long the last records may take when the process ends: less than its tasks are given (`shutdown.task_grace_ms`),
/// so that what could not be shipped is counted.
const FLUSH: Duration = Duration::from_secs(1);

/// Sends records of a line of numbers to the audit service; repeated until it has them.
pub(crate) type Ship = Arc<dyn Fn(u32, Vec<Row>) -> BoxFuture<'static, Shipped> + Send + Sync>;

pub(crate) struct AuditQueue {
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
    /// How many of the rows are of each organization.
    waiting: BTreeMap<String, usize>,
    last: i64,
    /// Numbers begin anew in each line; there is a second one when the audit log forgot what it had of the first.
    line: u32,
    /// Why the last delivery failed; nothing when it did not.
    failure: Option<String>,
    /// Requests without valid credentials that are not recorded yet, by reason.
    refusals: BTreeMap<&'static str, u64>,
    refusals_recorded: Option<OffsetDateTime>,
}

impl AuditQueue {
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
        let window = Duration::try_from(self.window).unwrap_or(RETRY_LAST);
        let flushing = self.clone();
        let ended = cancel.clone();
        // Beside the deliveries, so that neither other records nor one that hangs put it off.
        let flush = async move {
            let mut tick = tokio::time::interval(window / 4);
            loop {
                tokio::select! {
                    () = ended.cancelled() => return,
                    _ = tick.tick() => flushing.flush_refusals(),
                }
            }
        };
        let deliver = async {
            while !cancel.is_cancelled() {
                self.ship_all(&ship, &cancel).await;
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = self.wake.notified() => {}
                }
            }
        };
        tokio::join!(flush, deliver);
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

    /// Ships what is there, batch by batch; what is acknowledged leaves the queue.
    async fn ship_all(&self, ship: &Ship, cancel: &CancellationToken) {
        let mut wait = RETRY_FIRST;
        loop {
            let (line, batch): (u32, Vec<Row>) = {
                let state = self.lock();
                (state.line, state.rows.iter().take(BATCH).cloned().collect())
            };
            if batch.is_empty() {
                return;
            }
            let Shipped { acknowledged, error } = ship(line, batch).await;
            self.shipped(acknowledged, error.as_ref().map(ToString::to_string));
            let Some(error) = error else {
                wait = RETRY_FIRST;
                continue;
            };
            if forgotten(&error) {
                tracing::error!(%error, "the audit log was set back: records go on in a line of their own");
                self.begin_anew(&error);
                continue;
            }
            tracing::warn!(%error, "audit records could not be shipped, trying again");
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(RETRY_LAST),
            }
        }
    }

    fn shipped(&self, acknowledged: Option<i64>, failure: Option<String>) {
        let mut state = self.lock();
        state.failure = failure;
        while let Some(row) = state.rows.pop_front_if(|row| Some(row.sequence) <= acknowledged) {
            let left = state.waiting.get(&row.organization).copied().unwrap_or_default().saturating_sub(1);
            match left {
                0 => state.waiting.remove(&row.organization),
                left => state.waiting.insert(row.organization, left),
            };
        }
    }

    /// Whether records get to the audit service; says why not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let state = self.lock();
        let Some(oldest) = state.rows.front() else { return Ok(()) };
        let age = self.clock.now() - oldest.event.event_time;
        if age <= MAX_STALL {
            return Ok(());
        }
        let why = state.failure.as_deref().unwrap_or("the audit service has not answered yet");
        Err(format!(
            "{} audit records wait, the oldest for {} s: {why}",
            state.rows.len(),
            age.whole_seconds()
        ))
    }

    fn put(&self, state: &mut State, organization: &str, event: AuditEvent) -> bool {
        let waiting = state.waiting.get(organization).copied().unwrap_or_default();
        if state.rows.len() >= self.capacity || waiting >= self.share() {
            self.dropped.add(1, &[]);
            tracing::error!(
                organization,
                waiting,
                action = event.action,
                "audit record dropped: too many wait for the audit service"
            );
            return false;
        }
        *state.waiting.entry(organization.to_owned()).or_default() += 1;
        state.last += 1;
        let sequence = state.last;
        state.rows.push_back(Row { organization: organization.to_owned(), sequence, event: event.bounded() });
        true
    }

    /// Most records of one organization: a fifth of the queue, so that no organization stops the others.
    fn share(&self) -> usize {
        self.capacity.div_ceil(5).max(MIN_SHARE)
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
        let summary = format!("{total} requests without valid credentials: {}", reasons.join(", "));
        let anonymous = PrincipalRef::new(PrincipalKind::Anonymous, "");
        let event = AuditEvent {
            audit_class: AuditClass::Aggregated,
            outcome: Outcome::error(Status::Denied, Code::Unauthenticated, "UNAUTHENTICATED"),
            ..self.event("gateway.authentication.refuse", anonymous, summary)
        };
        self.put(state, INSTALLATION, event);
    }

    fn event(&self, action: &str, principal: PrincipalRef, summary: String) -> AuditEvent {
        AuditEvent { summary, ..AuditEvent::new(self.ids.uuid(), self.clock.now(), action, principal) }
    }

    /// Numbers what waits from 1 in a new line, behind a record that says which numbers of the old one may be missing.
    fn begin_anew(&self, error: &ShipError) {
        let mut state = self.lock();
        let known = state.rows.front().map_or(state.last, |row| row.sequence - 1);
        let summary = format!("the audit log does not have the first {known} records of a gateway: {error}");
        let itself = PrincipalRef::new(PrincipalKind::Service, service_name(GATEWAY));
        let event = self.event("platform.restore", itself, summary).bounded();
        state.rows.push_front(Row { organization: INSTALLATION.to_owned(), sequence: 0, event });
        for (row, sequence) in state.rows.iter_mut().zip(1..) {
            row.sequence = sequence;
        }
        state.last = i64::try_from(state.rows.len()).unwrap_or(i64::MAX);
        state.line += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock can leave it half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the audit log does not go on from what it acknowledged: its database was set back.
fn forgotten(error: &ShipError) -> bool {
    let (ShipError::Away(status) | ShipError::Refused { status, .. }) = error else { return false };
    let known = from_status(status);
    [RefusalReason::SequenceGap, RefusalReason::ProducerDiverged].into_iter().any(|why| known.refuses(why))
}

#[cfg(test)]
mod tests {
    use pavior_core::clock::ManualClock;
    use pavior_core::id_gen::SeededIds;
    use tokio::sync::mpsc;

    use super::*;

    fn trail(capacity: usize) -> (Arc<AuditQueue>, Arc<ManualClock>) {
        trail_with(capacity, time::Duration::seconds(60))
    }

    fn trail_with(capacity: usize, window: time::Duration) -> (Arc<AuditQueue>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        let counter = opentelemetry::metrics::MeterProvider::meter(
            &opentelemetry::metrics::noop::NoopMeterProvider::new(),
            "test",
        )
        .u64_counter("dropped")
        .build();
        let ids = Arc::new(SeededIds::new(1));
        (Arc::new(AuditQueue::new(capacity, window, clock.clone(), ids, counter)), clock)
    }

    fn event(summary: &str) -> AuditEvent {
        let anonymous = PrincipalRef::new(PrincipalKind::Anonymous, "");
        let (id, now) = (SeededIds::new(2).uuid(), ManualClock::default().now());
        AuditEvent { summary: summary.to_owned(), ..AuditEvent::new(id, now, "a.b.c", anonymous) }
    }

    fn away() -> Shipped {
        let error = ShipError::Away(tonic::Status::unavailable("down"));
        Shipped { acknowledged: None, error: Some(error) }
    }

    /// A place that records arrive at, which fails as often as it is told to.
    fn place(failures: usize) -> (Ship, mpsc::UnboundedReceiver<Row>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let left = Arc::new(std::sync::atomic::AtomicUsize::new(failures));
        let ship: Ship = Arc::new(move |_, rows| {
            use std::sync::atomic::Ordering::SeqCst;
            let failed = left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            let acknowledged = rows.last().map(|row| row.sequence);
            if !failed {
                // Who has seen enough does not listen any more.
                rows.into_iter().for_each(|row| drop(sender.send(row)));
            }
            Box::pin(std::future::ready(if failed { away() } else { Shipped { acknowledged, error: None } }))
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
        assert_eq!(first.organization, "pavior");
        assert_eq!(first.event.summary, "1 requests without valid credentials: missing 1");
        let second = arrived.recv().await.unwrap();
        assert_eq!(second.event.summary, "1000 requests without valid credentials: expired 1, missing 999");
        assert!(arrived.try_recv().is_err());
    }

    #[tokio::test]
    async fn other_records_do_not_put_off_those_of_refusals() {
        let (trail, clock) = trail_with(1_000, time::Duration::milliseconds(80));
        let (ship, mut arrived) = place(0);
        let cancel = CancellationToken::new();
        let task = tokio::spawn(trail.clone().run(ship, cancel.clone()));
        for _ in 0..535 {
            trail.refused("missing");
        }
        clock.advance(Duration::from_millis(80));
        // Somebody does something all the time.
        let until = tokio::time::Instant::now() + Duration::from_secs(10);
        let mut refusals = 0;
        while refusals < 535 && tokio::time::Instant::now() < until {
            trail.push("acme", event("other"));
            tokio::task::yield_now().await;
            while let Ok(row) = arrived.try_recv() {
                let count = row.event.summary.split(' ').next().and_then(|n| n.parse::<u64>().ok());
                refusals += count.unwrap_or_default();
            }
        }
        assert_eq!(refusals, 535);
        cancel.cancel();
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn one_organization_does_not_fill_the_queue_for_all() {
        let (trail, _) = trail(1_000);
        let kept = (0..300).filter(|_| trail.push("acme", event("a"))).count();
        assert_eq!(kept, 200);
        assert!(trail.push("beta", event("b")));
        let (ship, _arrived) = place(0);
        trail.ship_all(&ship, &CancellationToken::new()).await;
        assert!(trail.push("acme", event("a")));
    }

    #[tokio::test]
    async fn records_that_stand_still_are_told_with_the_reason() {
        let (trail, clock) = trail(10);
        trail.push("acme", event("a"));
        assert_eq!(trail.check(), Ok(()));
        clock.advance(Duration::from_secs(31));
        assert!(trail.check().unwrap_err().starts_with("1 audit records wait, the oldest for 31 s: "));
        let cancel = CancellationToken::new();
        let ship: Ship = Arc::new(|_, _| Box::pin(std::future::ready(away())));
        let ended = cancel.clone();
        tokio::join!(trail.ship_all(&ship, &cancel), async { ended.cancel() });
        assert!(trail.check().unwrap_err().contains("the audit service does not answer"));
        let (ship, _arrived) = place(0);
        trail.ship_all(&ship, &CancellationToken::new()).await;
        assert_eq!(trail.check(), Ok(()));
    }

    #[tokio::test]
    async fn log_that_was_set_back_is_told_what_it_lacks_in_a_line_of_its_own() {
        let (trail, _) = trail(10);
        for summary in ["a", "b", "c"] {
            trail.push("acme", event(summary));
        }
        let (ship, _) = place(0);
        trail.ship_all(&ship, &CancellationToken::new()).await;
        trail.push("acme", event("d"));
        let (sender, mut arrived) = mpsc::unbounded_channel();
        let ship: Ship = Arc::new(move |line, rows| {
            let acknowledged = rows.last().map(|row| row.sequence);
            let gap =
                || pavior_rpc::Problem::refusal(RefusalReason::SequenceGap, "1 was expected and 4 came");
            let shipped = match line {
                0 => Shipped { acknowledged: None, error: Some(ShipError::Away(gap().into())) },
                _ => Shipped { acknowledged, error: None },
            };
            sender.send((line, rows)).unwrap();
            Box::pin(std::future::ready(shipped))
        });
        trail.ship_all(&ship, &CancellationToken::new()).await;
        let (line, rows) = arrived.recv().await.unwrap();
        assert_eq!((line, rows.len(), rows[0].sequence), (0, 1, 4));
        let (line, rows) = arrived.recv().await.unwrap();
        let said: Vec<_> = rows.iter().map(|row| (row.sequence, row.event.action.as_str())).collect();
        assert_eq!((line, said), (1, vec![(1, "platform.restore"), (2, "a.b.c")]));
        assert!(rows[0].event.summary.contains("first 3 records"), "{}", rows[0].event.summary);
        trail.push("acme", event("e"));
        trail.ship_all(&ship, &CancellationToken::new()).await;
        let (_, rows) = arrived.recv().await.unwrap();
        assert_eq!(rows[0].sequence, 3);
    }
}
