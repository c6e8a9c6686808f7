//! Group commit on SQLite.

use super::{count, db, sql, store};
use pavior_store::{Store, StoreError};
use sea_orm::ConnectionTrait as _;
use std::time::{Duration, Instant};

async fn insert(store: &Store, id: i64, fail: bool) -> Result<(), StoreError> {
    store
        .upkeep("a test", move |tx| {
            Box::pin(async move {
                let text = "INSERT INTO counters (id, value) VALUES ($1, $1)";
                tx.execute_raw(sql(tx, text, [id.into()])).await?;
                if fail { Err(StoreError::Corrupt("asked for".into())) } else { Ok(()) }
            })
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_group_succeed_and_fail_on_their_own() {
    let db = db::sqlite();
    let store = store(&db).await;
    let tasks: Vec<_> = (0..200i64)
        .map(|id| {
            let store = store.clone();
            tokio::spawn(async move { (id, insert(&store, id, id % 3 == 0).await) })
        })
        .collect();
    for task in tasks {
        let (id, result) = task.await.unwrap();
        assert_eq!(result.is_err(), id % 3 == 0, "{id}");
    }
    assert_eq!(count(&store, "counters").await, 133);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_callers_neither_block_the_writer_nor_write_half() {
    let db = db::sqlite();
    let store = store(&db).await;
    let tasks: Vec<_> = (0..300i64)
        .map(|id| {
            let store = store.clone();
            tokio::spawn(async move {
                let two = store.upkeep("a test", move |tx| {
                    Box::pin(async move {
                        for n in [id * 2, id * 2 + 1] {
                            let text = "INSERT INTO counters (id, value) VALUES ($1, $1)";
                            tx.execute_raw(sql(tx, text, [n.into()])).await?;
                            tokio::task::yield_now().await;
                        }
                        Ok::<_, StoreError>(())
                    })
                });
                // Every other caller gives up at some moment: while it waits, runs, or waits for the commit.
                let patience =
                    if id % 2 == 0 { Duration::from_micros(id as u64 * 100) } else { Duration::MAX };
                tokio::time::timeout(patience, two).await.is_ok_and(|r| r.is_ok())
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += i64::from(task.await.unwrap());
    }
    assert!(done >= 150, "{done}");
    // The writer is free, and what was dropped was dropped whole.
    insert(&store, 1_000_000, false).await.unwrap();
    let rows = count(&store, "counters").await - 1;
    assert!(rows % 2 == 0 && rows >= done * 2, "{rows} rows, {done} done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_member_leaves_the_writer_usable() {
    let db = db::sqlite();
    let store = store(&db).await;
    let panicking = store.clone();
    let task = tokio::spawn(async move {
        let _ = panicking
            .upkeep("a test", move |tx| {
                Box::pin(async move {
                    tx.execute_raw(sql(tx, "INSERT INTO counters (id, value) VALUES (1, 1)", [])).await?;
                    if tx.get_database_backend() == sea_orm::DbBackend::Sqlite {
                        panic!("in a transaction");
                    }
                    Ok::<_, StoreError>(())
                })
            })
            .await;
    });
    assert!(task.await.unwrap_err().is_panic());
    insert(&store, 2, false).await.unwrap();
    assert_eq!(count(&store, "counters").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_share_commits() {
    let db = db::sqlite();
    let store = store(&db).await;
    let begin = Instant::now();
    let tasks: Vec<_> = (0..64i64)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    insert(&store, client * 1_000 + n, false).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let rate = 3_200.0 / begin.elapsed().as_secs_f64();
    println!("{rate:.0} durable transactions a second with 64 clients");
    assert_eq!(count(&store, "counters").await, 3_200);
}
