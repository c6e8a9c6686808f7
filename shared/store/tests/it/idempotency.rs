//! Replay of answers.

use super::outbox::event;
use super::{count, db, sql, store};
use pavior_core::clock::{Clock as _, SystemClock};
use pavior_store::idempotency::{self, IdempotencyError, Kept, Key};
use pavior_store::outbox::OutboxContext;
use pavior_store::{Recorded, Store, StoreError};
use sea_orm::ConnectionTrait as _;
use std::sync::Arc;

const ALICE: &str = "organizations/acme/users/alice";
const CREATE: &str = "/t.v1.T/Create";

pub(super) fn key(request_id: &str) -> Key {
    Key::new("acme", ALICE, CREATE, request_id)
}

/// A change as a service would make it: the first call inserts, later ones get its answer.
pub(super) async fn create(
    store: &Store,
    key: &Key,
    hash: &'static [u8],
    answer: i64,
) -> Result<Vec<u8>, IdempotencyError> {
    let key = key.clone();
    let clock = Arc::new(SystemClock);
    store
        .change(&OutboxContext::new(store, "test", "one", clock.clone()), move |tx| {
            let (key, time) = (key.clone(), clock.now());
            Box::pin(async move {
                if let Some(first) = idempotency::check(tx, &key, hash).await? {
                    return Ok(Recorded::unchanged(first));
                }
                tokio::task::yield_now().await;
                let text = "INSERT INTO counters (id, value) VALUES ($1, $1)";
                tx.execute_raw(sql(tx, text, [answer.into()])).await.map_err(StoreError::from)?;
                let response = answer.to_be_bytes().to_vec();
                let (hash, facts) = (hash.to_vec(), b"facts".to_vec());
                let kept = Kept { key, hash, response: response.clone(), facts, time };
                Ok(Recorded::new(response, event("counted")).answering(Some(kept)))
            })
        })
        .await
}

#[tokio::test]
async fn the_first_answer_is_replayed_and_other_content_is_refused() {
    db::both(|db| async move {
        let store = store(&db).await;
        let first = create(&store, &key("r1"), b"h1", 1).await.unwrap();
        assert_eq!(create(&store, &key("r1"), b"h1", 2).await.unwrap(), first);
        assert_eq!(create(&store, &key("R1"), b"h1", 2).await.unwrap(), first);
        let reused = create(&store, &key("r1"), b"h2", 3).await;
        assert!(matches!(reused, Err(IdempotencyError::Reused)), "{}", db.kind);
        // Another principal, organization, method or id is another request.
        for (n, other) in [
            Key::new("acme", "organizations/acme/users/bob", CREATE, "r1"),
            Key::new("other", ALICE, CREATE, "r1"),
            Key::new("acme", ALICE, "/t.v1.T/Delete", "r1"),
            key("r2"),
        ]
        .into_iter()
        .enumerate()
        {
            create(&store, &other, b"h3", 10 + n as i64).await.unwrap();
        }
        assert_eq!(count(&store, "counters").await, 5, "{}", db.kind);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_with_one_id_act_once_and_get_one_answer() {
    db::both(|db| async move {
        let store = store(&db).await;
        let tasks: Vec<_> = (0..16)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move { create(&store, &key("same"), b"h", n).await.unwrap() })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap());
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{}", db.kind);
        assert_eq!(count(&store, "counters").await, 1, "{}", db.kind);
    })
    .await;
}

#[tokio::test]
async fn answers_are_forgotten_after_a_day() {
    db::both(|db| async move {
        let store = store(&db).await;
        create(&store, &key("old"), b"h", 1).await.unwrap();
        let now = SystemClock.now();
        let at = |hours| now + time::Duration::hours(hours);
        let facts = |hours| {
            let store = &store;
            async move { idempotency::facts(store.read(), &key("OLD"), at(hours)).await.unwrap() }
        };
        assert_eq!(facts(23).await.as_deref(), Some(b"facts".as_slice()), "{}", db.kind);
        // Whoever was let in by the facts finds the answer: it outlives them.
        assert_eq!(facts(25).await, None, "{}", db.kind);
        assert_eq!(idempotency::sweep(&store, at(24)).await.unwrap(), 0);
        assert_eq!(idempotency::sweep(&store, at(26)).await.unwrap(), 1);
        assert_eq!(count(&store, "idempotency").await, 0, "{}", db.kind);
    })
    .await;
}
