//! The outbox and its relay.

use super::{count, db, sql, store};
use pavior_core::audit::{Actor, AuditClass, AuditEvent, Cause, Object, Outcome, Phase};
use pavior_core::clock::{Clock as _, ManualClock};
use pavior_core::id::{IdGen as _, SystemIds};
use pavior_store::outbox::{self, Limits, OutboxContext, OutboxRow, Relay};
use pavior_store::{ErrorKind, Recorded, Retryable as _, Store, StoreError};
use sea_orm::ConnectionTrait as _;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub(super) fn event(summary: &str) -> AuditEvent {
    AuditEvent {
        event_id: SystemIds.uuid(),
        time: ManualClock::default().now(),
        class: AuditClass::A,
        action: "test.things.create".into(),
        phase: Phase::Outcome,
        actor: Actor {
            kind: "user".into(),
            reference: "organizations/acme/users/alice".into(),
            ..Default::default()
        },
        object: Object {
            r#type: "pavior.dev/Thing".into(),
            name: "organizations/acme/things/x".into(),
            project: None,
        },
        cause: Cause::default(),
        decision: None,
        outcome: Outcome { status: "ok".into(), code: "OK".into(), duration_ms: 1 },
        change: None,
        summary: summary.into(),
    }
}

fn context(clock: &Arc<ManualClock>) -> OutboxContext {
    OutboxContext::new("test", "one", clock.clone())
}

async fn append(store: &Store, context: &OutboxContext, fail: bool) -> Result<(), StoreError> {
    let event = event("x");
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
        let context = context(&Arc::new(ManualClock::default()));
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
        let context = context(&Arc::new(ManualClock::default()));
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
                                    return Err("refused before it was kept".into());
                                }
                                seen.lock().unwrap().extend(rows.iter().map(|r| r.seq));
                                if n % 5 == 3 { Err("kept, but the answer was lost".into()) } else { Ok(()) }
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
        let mut context = context(&clock);
        context.limits.max_rows = 3;
        for _ in 0..3 {
            append(&store, &context, false).await.unwrap();
        }
        let error = append(&store, &context, false).await.unwrap_err();
        assert!(matches!(error, StoreError::OutboxFull { rows: 3, .. }), "{error:?}");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, false));
        let relay = Relay::new(store.clone(), "test", Limits::default());
        assert_eq!(relay.drain(|_| Box::pin(async { Ok(()) })).await.unwrap(), 3);
        // The refused append took no number.
        append(&store, &context, false).await.unwrap();
        assert_eq!(last(&store, "test").await, 4);
        clock.advance(Duration::from_secs(15 * 60));
        append(&store, &context, false).await.unwrap();
        clock.advance(Duration::from_secs(1));
        let error = append(&store, &context, false).await.unwrap_err();
        assert!(matches!(error, StoreError::OutboxFull { oldest_seconds: 901, .. }), "{error:?}");
        let lag = outbox::lag(&store, "test", clock.now()).await.unwrap();
        assert_eq!((lag.rows, lag.oldest), (2, Some(Duration::from_secs(901))), "{}", db.kind);
    })
    .await;
}

#[tokio::test]
async fn a_new_epoch_starts_at_one_and_comes_after_the_old() {
    db::both(|db| async move {
        let store = store(&db).await;
        let clock = Arc::new(ManualClock::default());
        let mut context = context(&clock);
        append(&store, &context, false).await.unwrap();
        context.instance = "two".into();
        append(&store, &context, false).await.unwrap();
        // Even when the clock stands still.
        let epoch = outbox::new_epoch(&store, "test", clock.now()).await.unwrap();
        append(&store, &context, false).await.unwrap();
        assert_eq!(last(&store, "test").await, 1);
        let batches: Arc<Mutex<Vec<(String, i64, Vec<i64>)>>> = Arc::default();
        let seen = batches.clone();
        let relay = Relay::new(store.clone(), "test", Limits::default());
        relay
            .drain(move |rows| {
                let batch = (rows[0].instance.clone(), rows[0].epoch, rows.iter().map(|r| r.seq).collect());
                seen.lock().unwrap().push(batch);
                Box::pin(async { Ok(()) })
            })
            .await
            .unwrap();
        let old = epoch - 1;
        let want = vec![
            ("one".to_owned(), old, vec![1]),
            ("two".to_owned(), old, vec![2]),
            ("two".to_owned(), epoch, vec![1]),
        ];
        assert_eq!(*batches.lock().unwrap(), want, "{}", db.kind);
    })
    .await;
}

#[tokio::test]
async fn services_in_one_database_have_their_own_numbers() {
    db::both(|db| async move {
        let store = store(&db).await;
        let clock = Arc::new(ManualClock::default());
        let (one, mut two) = (context(&clock), context(&clock));
        two.service = "other".into();
        append(&store, &one, false).await.unwrap();
        append(&store, &two, false).await.unwrap();
        append(&store, &one, false).await.unwrap();
        assert_eq!((last(&store, "other").await, last(&store, "test").await), (1, 2));
        assert_eq!(outbox::pending(&store, "other", 10).await.unwrap().len(), 1);
        let rows = outbox::pending(&store, "test", 10).await.unwrap();
        assert_eq!(rows[0].event.object.name, "organizations/acme/things/x");
        assert_eq!(rows[0].create_time, clock.now(), "{}", db.kind);
    })
    .await;
}
