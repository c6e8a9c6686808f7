//! Replay of answers.

use super::{count, db, sql, store};
use pavior_core::clock::{Clock as _, SystemClock};
use pavior_store::idempotency::{self, IdempotencyError, Key};
use pavior_store::{Store, StoreError};
use sea_orm::ConnectionTrait as _;

fn key(request_id: &str) -> Key {
    Key {
        organization: "acme".into(),
        principal: "organizations/acme/users/alice".into(),
        method: "/t.v1.T/Create".into(),
        request_id: request_id.into(),
    }
}

/// A change as a service would make it: the first call inserts, later ones get its answer.
async fn create(
    store: &Store,
    key: &Key,
    hash: &'static [u8],
    answer: i64,
) -> Result<Vec<u8>, IdempotencyError> {
    store
        .tx(|tx| {
            let key = key.clone();
            Box::pin(async move {
                if let Some(first) = idempotency::check(tx, &key, hash).await? {
                    return Ok(first);
                }
                tokio::task::yield_now().await;
                let text = "INSERT INTO counters (id, value) VALUES ($1, $1)";
                tx.execute_raw(sql(tx, text, [answer.into()])).await.map_err(StoreError::from)?;
                idempotency::save(tx, &key, hash, &answer.to_be_bytes()).await?;
                Ok(answer.to_be_bytes().to_vec())
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
        let reused = create(&store, &key("r1"), b"h2", 3).await;
        assert!(matches!(reused, Err(IdempotencyError::Reused)), "{}", db.kind);
        // Another principal, organization, method or id is another request.
        for (n, other) in [
            Key { principal: "organizations/acme/users/bob".into(), ..key("r1") },
            Key { organization: "other".into(), ..key("r1") },
            Key { method: "/t.v1.T/Delete".into(), ..key("r1") },
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
        assert_eq!(idempotency::sweep(&store, now + time::Duration::hours(23)).await.unwrap(), 0);
        assert_eq!(idempotency::sweep(&store, now + time::Duration::hours(25)).await.unwrap(), 1);
        assert_eq!(count(&store, "idempotency").await, 0, "{}", db.kind);
    })
    .await;
}
