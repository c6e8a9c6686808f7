//! What the writer survives: callers that go, panics, transactions that never end, a full disk, lost connections.

use super::outbox::event;
use super::{count, db, sql, store};
use pavior_core::clock::{Clock as _, ManualClock};
use pavior_store::idempotency::{self, Kept, Key};
use pavior_store::outbox::OutboxContext;
use pavior_store::{ErrorKind, Recorded, Store, StoreError};
use sea_orm::{ConnectionTrait as _, DbBackend};
use std::collections::BTreeSet;
use std::future::Future as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::Poll;
use std::time::Duration;

async fn insert(store: &Store, id: i64) -> Result<(), StoreError> {
    store
        .upkeep("a test", move |tx| {
            Box::pin(async move {
                tx.execute_raw(sql(tx, "INSERT INTO counters (id, value) VALUES ($1, $1)", [id.into()]))
                    .await?;
                tokio::task::yield_now().await;
                tx.execute_raw(sql(tx, "UPDATE counters SET value = -id WHERE id = $1", [id.into()])).await?;
                Ok(())
            })
        })
        .await
}

async fn run(store: &Store, text: &'static str) -> Result<(), StoreError> {
    store
        .upkeep("a test", move |tx| Box::pin(async move { Ok(tx.execute_unprepared(text).await.map(drop)?) }))
        .await
}

async fn ids(store: &Store) -> BTreeSet<i64> {
    let rows =
        store.read().query_all_raw(sql(store.read(), "SELECT id, value FROM counters", [])).await.unwrap();
    rows.iter()
        .map(|row| {
            let (id, value): (i64, i64) =
                (i64::from(row.try_get::<i32>("", "id").unwrap()), row.try_get("", "value").unwrap());
            assert_eq!(value, -id, "{id} was written by half");
            id
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_dropped_at_any_await_takes_nobody_with_it() {
    db::both(|db| async move {
        let store = store(&db).await;
        let mut acknowledged = BTreeSet::new();
        for polls in 1..=30 {
            let others: Vec<_> = (1..=4)
                .map(|n| {
                    let (store, id) = (store.clone(), polls * 10 + n);
                    tokio::spawn(async move { insert(&store, id).await.map(|()| id) })
                })
                .collect();
            let mut leaving = Box::pin(insert(&store, polls * 10));
            for _ in 0..polls {
                let polled = std::future::poll_fn(|cx| Poll::Ready(leaving.as_mut().poll(cx))).await;
                if polled.is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(leaving);
            for other in others {
                acknowledged.insert(other.await.unwrap().unwrap());
            }
        }
        insert(&store, 1_000_000).await.unwrap();
        let kept = ids(&store).await;
        assert!(kept.is_superset(&acknowledged), "{}: {:?}", db.kind, acknowledged.difference(&kept));
        assert_eq!(acknowledged.len(), 120);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_beside_callers_that_give_up() {
    db::both(|db| async move {
        let store = store(&db).await;
        let (next, stop) = (Arc::new(AtomicI64::new(1)), Arc::new(AtomicBool::new(false)));
        let impatient: Vec<_> = (0..8u64)
            .map(|n| {
                let (store, next, stop) = (store.clone(), next.clone(), stop.clone());
                tokio::spawn(async move {
                    let mut millis = n;
                    while !stop.load(Ordering::SeqCst) {
                        millis = millis % 15 + 1;
                        let id = next.fetch_add(1, Ordering::SeqCst);
                        let _ = tokio::time::timeout(Duration::from_millis(millis), insert(&store, id)).await;
                    }
                })
            })
            .collect();
        let patient: Vec<_> = (0..8)
            .map(|_| {
                let (store, next, kind) = (store.clone(), next.clone(), db.kind);
                tokio::spawn(async move {
                    let mut mine = Vec::new();
                    for _ in 0..60 {
                        let id = next.fetch_add(1, Ordering::SeqCst);
                        insert(&store, id).await.unwrap_or_else(|e| panic!("{e:?} on {kind}"));
                        mine.push(id);
                    }
                    mine
                })
            })
            .collect();
        let mut acknowledged = BTreeSet::new();
        for task in patient {
            acknowledged.extend(task.await.unwrap());
        }
        stop.store(true, Ordering::SeqCst);
        for task in impatient {
            task.await.unwrap();
        }
        let kept = ids(&store).await;
        assert!(kept.is_superset(&acknowledged), "{}: {:?}", db.kind, acknowledged.difference(&kept));
        assert_eq!(acknowledged.len(), 480);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_writing_goes_on_when_there_is_room() {
    let db = db::sqlite();
    let store = store(&db).await;
    run(&store, "CREATE TABLE blobs (id INTEGER PRIMARY KEY, filler BLOB NOT NULL)").await.unwrap();
    let mut acknowledged = 0;
    for cycle in 1..=4 {
        // No page more than there are. The limit is of the connection, so its end gives room.
        run(&store, "PRAGMA max_page_count = 1").await.unwrap();
        let tasks: Vec<_> = (0..40)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    run(&store, "INSERT INTO blobs (filler) VALUES (zeroblob(9000))").await
                })
            })
            .collect();
        let mut refused = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(()) => acknowledged += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "the disk was never full in cycle {cycle}");
        run(&store, "INSERT INTO blobs (filler) VALUES (zeroblob(9000))").await.unwrap();
        acknowledged += 1;
        assert_eq!(count(&store, "blobs").await, acknowledged, "in cycle {cycle}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_finds_a_full_disk_and_says_so() {
    let db = db::sqlite();
    let store = store(&db).await;
    let full = store.upkeep::<(), StoreError, _>("a test", |tx| {
        Box::pin(async move {
            tx.execute_unprepared("PRAGMA max_page_count = 1").await?;
            Err(StoreError::Corrupt("no commit, so that health has to write".into()))
        })
    });
    full.await.unwrap_err();
    // No commit is recent enough to be taken for a proof.
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    let reason = loop {
        match store.check().await {
            Err(reason) => break reason,
            Ok(()) => assert!(tokio::time::Instant::now() < until, "health does not notice"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(reason, "no room is left: the disk, or the database's own limit, is full");
    store.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_never_ends_is_undone_and_the_next_one_runs() {
    db::both(|db| async move {
        let mut config = db.config();
        config.transaction_timeout_ms = 300;
        let store = Store::connect(&config, "test").await.unwrap();
        pavior_store::migrate::<super::Tables>(&store).await.unwrap();
        let endless = match store.backend() {
            DbBackend::Sqlite => {
                "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
            }
            _ => "SELECT pg_sleep(3)",
        };
        for statement in [None, Some(endless)] {
            let error = store
                .upkeep::<(), StoreError, _>("a test", move |tx| {
                    Box::pin(async move {
                        tx.execute_unprepared("INSERT INTO counters (id, value) VALUES (1, -1)").await?;
                        match statement {
                            Some(statement) => tx.execute_unprepared(statement).await.map(drop)?,
                            None => std::future::pending().await,
                        }
                        Ok(())
                    })
                })
                .await
                .unwrap_err();
            assert!(matches!(error, StoreError::TookTooLong { limit_ms: 300 }), "{}: {error:?}", db.kind);
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            insert(&store, 2).await.unwrap();
            assert_eq!(ids(&store).await, [2].into(), "{}", db.kind);
            run(&store, "DELETE FROM counters").await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_ended_from_within_keeps_nothing() {
    let db = db::sqlite();
    let store = store(&db).await;
    for end in ["COMMIT", "ROLLBACK"] {
        let error = store
            .upkeep::<(), StoreError, _>("a test", move |tx| {
                Box::pin(async move {
                    tx.execute_unprepared("INSERT INTO counters (id, value) VALUES (1, -1)").await?;
                    let _ = tx.execute_unprepared(end).await;
                    // Would stand for ever if it were run.
                    let _ = tx.execute_unprepared("INSERT INTO counters (id, value) VALUES (2, -2)").await;
                    Ok(())
                })
            })
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Database(_)), "{end}: {error:?}");
        assert_eq!(ids(&store).await, BTreeSet::new(), "{end}");
    }
    insert(&store, 3).await.unwrap();
    assert_eq!(ids(&store).await, [3].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_postgres_answers_with_rollback_is_no_success() {
    let Some(db) = db::postgres().await else { return };
    let store = store(&db).await;
    insert(&store, 1).await.unwrap();
    let error = store
        .upkeep::<(), StoreError, _>("a test", |tx| {
            Box::pin(async move {
                tx.execute_unprepared("INSERT INTO counters (id, value) VALUES (2, -2)").await?;
                // Its error is overlooked.
                let _ = tx.execute_unprepared("INSERT INTO counters (id, value) VALUES (1, -1)").await;
                Ok(())
            })
        })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other, "{error:?}");
    assert_eq!(ids(&store).await, [1].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_killed_within_a_transaction_writes_nothing() {
    let Some(db) = db::postgres().await else { return };
    let store = store(&db).await;
    let error = store
        .upkeep::<(), StoreError, _>("a test", |tx| {
            Box::pin(async move {
                tx.execute_unprepared("INSERT INTO counters (id, value) VALUES (1, -1)").await?;
                tx.execute_unprepared("SELECT pg_terminate_backend(pg_backend_pid())").await?;
                Ok(())
            })
        })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    insert(&store, 2).await.unwrap();
    assert_eq!(ids(&store).await, [2].into());
}

#[tokio::test]
async fn without_an_event_a_change_is_undone_but_its_answer_kept() {
    db::both(|db| async move {
        let store = store(&db).await;
        let clock = Arc::new(ManualClock::default());
        let outbox = OutboxContext::new(&store, "test", "one", clock.clone());
        let key = Key::new("acme", "alice", "/t.v1.T/Create", "r1");
        let kept = |response: &[u8]| {
            let (hash, response, facts) = (b"h".to_vec(), response.to_vec(), Vec::new());
            Kept { key: key.clone(), hash, response, facts, time: clock.now() }
        };
        for (id, recorded) in [(1, false), (2, true)] {
            let kept = (id == 1).then(|| kept(b"first"));
            let value = store
                .change::<i64, StoreError, _>(&outbox, move |tx| {
                    let kept = kept.clone();
                    Box::pin(async move {
                        let text = "INSERT INTO counters (id, value) VALUES ($1, -$1)";
                        tx.execute_raw(sql(tx, text, [id.into()])).await?;
                        let recorded = match recorded {
                            true => Recorded::new(id, event("made")).and(event("and made known")),
                            false => Recorded::unchanged(id),
                        };
                        Ok(recorded.answering(kept))
                    })
                })
                .await;
            assert_eq!(value.unwrap(), id);
        }
        assert_eq!(ids(&store).await, [2].into(), "{}", db.kind);
        assert_eq!(count(&store, "outbox").await, 2, "{}", db.kind);
        let first = idempotency::check(store.read(), &key, b"h").await.unwrap();
        assert_eq!(first.as_deref(), Some(&b"first"[..]), "{}", db.kind);
    })
    .await;
}

#[tokio::test]
async fn closing_empties_the_log_and_takes_no_more() {
    let db = db::sqlite();
    let store = store(&db).await;
    insert(&store, 1).await.unwrap();
    store.close().await.unwrap();
    let file = db.url.trim_start_matches("sqlite://").trim_end_matches("?mode=rwc");
    let log = std::fs::metadata(format!("{file}-wal")).map_or(0, |log| log.len());
    assert_eq!(log, 0, "the write-ahead log is not empty");
    let error = insert(&store, 2).await.unwrap_err();
    assert!(matches!(error, StoreError::Closed), "{error:?}");
    // Even while a clone is alive, the file is free.
    let again = db.connect().await;
    assert_eq!(ids(&again).await, [1].into());
}
