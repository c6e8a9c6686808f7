//! The outbox and its relay.

use super::{count, db, sql, store};
use pavior_core::audit::{Affected, AuditEvent, Change, PrincipalKind, PrincipalRef};
use pavior_core::clock::{Clock as _, ManualClock};
use pavior_core::id_gen::{IdGen as _, SystemIds};
use pavior_store::outbox::{self, Delivery, Limits, OutboxContext, OutboxRow, Relay};
use pavior_store::{ErrorKind, Recorded, Retryable as _, Store, StoreError};
use sea_orm::ConnectionTrait as _;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub(super) fn event(summary: &str) -> AuditEvent {
    let alice = PrincipalRef::new(PrincipalKind::User, "organizations/acme/users/alice");
    AuditEvent {
        target: Some(Affected::new("pavior.dev/Thing", "organizations/acme/things/x")),
        summary: summary.into(),
        ..AuditEvent::new(SystemIds.uuid(), ManualClock::default().now(), "test.things.create", alice)
    }
}

fn kept(rows: &[OutboxRow]) -> Delivery {
    Delivery { acknowledged: rows.last().map(|row| row.seq), error: None }
}

fn failed(why: &str) -> Delivery {
    Delivery { acknowledged: None, error: Some(why.into()) }
}

fn context(store: &Store, clock: &Arc<ManualClock>) -> OutboxContext {
    OutboxContext::new(store, "test", "one", clock.clone())
}

/// For an event of `acme`.
async fn has_room(store: &Store, context: &OutboxContext) -> bool {
    let context = context.clone();
    let asked = store.upkeep("a question", move |tx| {
        let context = context.clone();
        Box::pin(async move { outbox::has_room(tx, &context, "acme").await })
    });
    asked.await.unwrap()
}

#[tokio::test]
async fn whoever_appends_to_a_database_whose_history_is_apart_is_refused() {
    db::both(|db| async move {
        let store = store(&db).await;
        let clock = Arc::new(ManualClock::default());
        let (one, other) = (context(&store, &clock), context(&store.clone(), &clock));
        one.history().set(Some(outbox::Difference::OlderEpoch { epoch: None, recorded: 7 }.of("one")));
        let error = append(&store, &other, false).await.unwrap_err();
        assert!(matches!(error, StoreError::Apart(_)), "{error:?} on {}", db.kind);
        one.history().set(None);
        append(&store, &other, false).await.unwrap();
    })
    .await;
}

async fn append(store: &Store, context: &OutboxContext, fail: bool) -> Result<(), StoreError> {
    append_event(store, context, event("x"), fail).await
}

async fn append_event(
    store: &Store,
    context: &OutboxContext,
    event: AuditEvent,
    fail: bool,
) -> Result<(), StoreError> {
    store
        .change(context, move |_| {
            let event = event.clone();
            Box::pin(async move {
                match fail {
                    true => Err(StoreError::Corrupt("asked for".into())),
                    false => Ok(Recorded::new((), event)),
                }
            })
        })
        .await
}

/// The last number that was given.
async fn last(store: &Store, service: &str) -> i64 {
    let text = "SELECT last_seq FROM outbox_epoch WHERE service = $1";
    let row = store.read().query_one_raw(sql(store.read(), text, [service.into()])).await.unwrap().unwrap();
    row.try_get("", "last_seq").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_have_no_gaps_under_64_parallel_appends_of_which_some_fail() {
    db::both(|db| async move {
        let store = store(&db).await;
        let context = context(&store, &Arc::new(ManualClock::default()));
        let tasks: Vec<_> = (0..64)
            .map(|task| {
                let (store, context) = (store.clone(), context.clone());
                tokio::spawn(async move {
                    let mut given = 0;
                    for n in 0..6 {
                        given += usize::from(append(&store, &context, (task + n) % 4 == 0).await.is_ok());
                    }
                    given
                })
            })
            .collect();
        let mut given = 0;
        for task in tasks {
            given += task.await.unwrap();
        }
        let rows = store.read().query_all_raw(sql(store.read(), "SELECT seq FROM outbox", [])).await.unwrap();
        let seqs: BTreeSet<i64> = rows.iter().map(|row| row.try_get("", "seq").unwrap()).collect();
        assert_eq!(given, 64 * 6 * 3 / 4, "{}", db.kind);
        assert_eq!(seqs, (1..=given as i64).collect::<BTreeSet<_>>(), "{}", db.kind);
        assert_eq!(count(&store, "outbox").await, given as i64);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_delivers_in_order_at_least_once_although_deliveries_fail() {
    db::both(|db| async move {
        let store = store(&db).await;
        let context = context(&store, &Arc::new(ManualClock::default()));
        let limits = Limits { batch: 7, poll: Duration::from_millis(20), ..Limits::default() };
        let seen: Arc<Mutex<Vec<i64>>> = Arc::default();
        let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let cancel = CancellationToken::new();
        let relays: Vec<_> = (0..2)
            .map(|_| {
                let relay = Relay::new(store.clone(), "test", limits);
                let (seen, calls, cancel) = (seen.clone(), calls.clone(), cancel.clone());
                tokio::spawn(async move {
                    relay
                        .run(cancel, move |rows: Vec<OutboxRow>| {
                            let (seen, n) =
                                (seen.clone(), calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
                            Box::pin(async move {
                                if n % 5 == 1 {
                                    return failed("refused before it was kept");
                                }
                                seen.lock().unwrap().extend(rows.iter().map(|r| r.seq));
                                if n % 5 == 3 { failed("kept, but the answer was lost") } else { kept(&rows) }
                            })
                        })
                        .await
                })
            })
            .collect();
        for _ in 0..60 {
            append(&store, &context, false).await.unwrap();
        }
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        while outbox::lag(&store, "test", context.clock.now()).await.unwrap().rows > 0 {
            assert!(tokio::time::Instant::now() < until, "relay did not deliver on {}", db.kind);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cancel.cancel();
        for relay in relays {
            relay.await.unwrap();
        }
        let seen = seen.lock().unwrap().clone();
        let mut greatest = 0;
        for seq in seen {
            assert!(seq <= greatest + 1, "{seq} was delivered before {} on {}", greatest + 1, db.kind);
            greatest = greatest.max(seq);
        }
        assert_eq!(greatest, 60, "{}", db.kind);
    })
    .await;
}

#[tokio::test]
async fn a_full_or_stale_outbox_refuses_until_it_is_delivered() {
    db::both(|db| async move {
        let store = store(&db).await;
        let clock = Arc::new(ManualClock::default());
        let mut context = context(&store, &clock);
        context.limits.max_rows = 3;
        for _ in 0..3 {
            append(&store, &context, false).await.unwrap();
        }
        let error = append(&store, &context, false).await.unwrap_err();
        assert!(matches!(error, StoreError::OutboxFull { rows: 3, .. }), "{error:?}");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, false));
        assert!(!has_room(&store, &context).await);
        // What has happened is recorded all the same.
        let happened =
            store.change(&context, |_| Box::pin(async { Ok(Recorded::new((), event("x")).happened()) }));
        happened.await.map_err(|error: StoreError| error).unwrap();
        let relay = Relay::new(store.clone(), "test", Limits::default());
        assert_eq!(relay.drain(|rows| Box::pin(async move { kept(&rows) })).await.unwrap(), 4);
        assert!(has_room(&store, &context).await);
        // The refused append took no number.
        append(&store, &context, false).await.unwrap();
        assert_eq!(last(&store, "test").await, 5);
        clock.advance(Duration::from_secs(15 * 60));
        append(&store, &context, false).await.unwrap();
        clock.advance(Duration::from_secs(1));
        let error = append(&store, &context, false).await.unwrap_err();
        assert!(matches!(error, StoreError::OutboxFull { oldest_seconds: 901, .. }), "{error:?}");
        assert!(!has_room(&store, &context).await);
        let lag = outbox::lag(&store, "test", clock.now()).await.unwrap();
        assert_eq!((lag.rows, lag.oldest), (2, Some(Duration::from_secs(901))), "{}", db.kind);
    })
    .await;
}

#[tokio::test]
async fn services_in_one_database_have_their_own_numbers() {
    db::both(|db| async move {
        let store = store(&db).await;
        let clock = Arc::new(ManualClock::default());
        let (one, mut two) = (context(&store, &clock), context(&store, &clock));
        two.service = "other".into();
        append(&store, &one, false).await.unwrap();
        append(&store, &two, false).await.unwrap();
        append(&store, &one, false).await.unwrap();
        assert_eq!((last(&store, "other").await, last(&store, "test").await), (1, 2));
        assert_eq!(outbox::pending(&store, "other", 10, usize::MAX).await.unwrap().len(), 1);
        let rows = outbox::pending(&store, "test", 10, usize::MAX).await.unwrap();
        assert_eq!(rows[0].event.target.as_ref().unwrap().name, "organizations/acme/things/x");
        assert_eq!(rows[0].create_time, clock.now(), "{}", db.kind);
    })
    .await;
}

#[tokio::test]
async fn an_organization_with_too_much_is_refused_and_others_go_on() {
    db::both(|db| async move {
        let store = store(&db).await;
        let mut context = context(&store, &Arc::new(ManualClock::default()));
        context.limits.max_organization_rows = 3;
        let of = |organization: &str, text: usize| AuditEvent {
            target: Some(Affected::new("", format!("organizations/{organization}/things/x"))),
            change: Some(Change { after: Some(serde_json::json!("x".repeat(text))), ..Change::default() }),
            ..event("x")
        };
        for _ in 0..3 {
            append_event(&store, &context, of("acme", 0), false).await.unwrap();
        }
        let error = append_event(&store, &context, of("acme", 0), false).await.unwrap_err();
        let StoreError::OrganizationOutboxFull { organization, rows: 3, limit_rows: 3, .. } = &error else {
            panic!("{error:?} on {}", db.kind);
        };
        assert_eq!(organization, "acme");
        assert!(!has_room(&store, &context).await);
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, false));
        append_event(&store, &context, of("beta", 0), false).await.unwrap();
        let mut others = context.clone();
        others.service = "other".into();
        assert!(has_room(&store, &others).await);
        // What is delivered counts no more, however often its delivery is told.
        let relay = Relay::new(store.clone(), "test", Limits::default());
        assert_eq!(relay.drain(|rows| Box::pin(async move { kept(&rows) })).await.unwrap(), 4);
        let rows = outbox::pending(&store, "test", 9, usize::MAX).await.unwrap();
        assert_eq!(rows, []);
        for _ in 0..3 {
            append_event(&store, &context, of("acme", 0), false).await.unwrap();
        }
        let error = append_event(&store, &context, of("acme", 0), false).await.unwrap_err();
        assert!(matches!(error, StoreError::OrganizationOutboxFull { .. }), "{}: {error:?}", db.kind);
        // Bytes count as well.
        context.limits.max_organization_bytes = 10_000;
        append_event(&store, &context, of("gamma", 9_000), false).await.unwrap();
        let error = append_event(&store, &context, of("gamma", 9_000), false).await.unwrap_err();
        let full = matches!(error, StoreError::OrganizationOutboxFull { rows: 1, limit_bytes: 10_000, .. });
        assert!(full, "{error:?} on {}", db.kind);
    })
    .await;
}

#[tokio::test]
async fn only_what_is_acknowledged_leaves_the_outbox() {
    db::both(|db| async move {
        let store = store(&db).await;
        let context = context(&store, &Arc::new(ManualClock::default()));
        for _ in 0..5 {
            append(&store, &context, false).await.unwrap();
        }
        let relay = Relay::new(store.clone(), "test", Limits::default());
        let partly = |acknowledged: Option<i64>, error: Option<&'static str>| {
            move |_: Vec<OutboxRow>| -> futures::future::BoxFuture<'static, Delivery> {
                Box::pin(async move { Delivery { acknowledged, error: error.map(Into::into) } })
            }
        };
        let error = relay.drain(partly(Some(2), None)).await.unwrap_err();
        assert_eq!(error.to_string(), "event 5 was delivered and Some(2) acknowledged");
        assert_eq!(outbox::pending(&store, "test", 9, usize::MAX).await.unwrap()[0].seq, 3, "{}", db.kind);
        let error = relay.drain(partly(Some(3), Some("away"))).await.unwrap_err();
        assert_eq!(error.to_string(), "away");
        let error = relay.drain(partly(None, None)).await.unwrap_err();
        assert_eq!(error.to_string(), "event 5 was delivered and None acknowledged");
        let left = outbox::lag(&store, "test", context.clock.now()).await.unwrap();
        assert_eq!(left.rows, 2, "{}", db.kind);
        // More than was sent is as good as all of it.
        assert_eq!(relay.drain(partly(Some(99), None)).await.unwrap(), 2);
    })
    .await;
}

#[tokio::test]
async fn an_event_is_bounded_where_it_is_appended_and_a_delivery_by_its_bytes() {
    db::both(|db| async move {
        let store = store(&db).await;
        let context = context(&store, &Arc::new(ManualClock::default()));
        let deep = (0..200).fold(serde_json::json!(1), |value, _| serde_json::json!([value]));
        let huge = serde_json::json!("x".repeat(1 << 20));
        for value in [deep, huge] {
            let change = Some(Change { after: Some(value), ..Change::default() });
            append_event(&store, &context, AuditEvent { change, ..event("x") }, false).await.unwrap();
        }
        for _ in 0..40 {
            let change = Change { after: Some(serde_json::json!("x".repeat(100_000))), ..Change::default() };
            let event = AuditEvent { change: Some(change), ..event("x") };
            append_event(&store, &context, event, false).await.unwrap();
        }
        let rows = outbox::pending(&store, "test", 500, 1_000_000).await.unwrap();
        assert_eq!(rows.len(), 2 + 9, "{}", db.kind);
        for row in &rows[..2] {
            let after = row.event.change.as_ref().unwrap().after.as_ref().unwrap();
            assert!(after["omitted"]["digest"].as_str().unwrap().starts_with("sha256:"), "{after}");
        }
        assert_eq!(outbox::pending(&store, "test", 500, 1).await.unwrap().len(), 1, "{}", db.kind);
        assert_eq!(outbox::pending(&store, "test", 20, usize::MAX).await.unwrap().len(), 20, "{}", db.kind);
        assert_eq!(outbox::pending(&store, "test", 500, usize::MAX).await.unwrap().len(), 42, "{}", db.kind);
    })
    .await;
}
