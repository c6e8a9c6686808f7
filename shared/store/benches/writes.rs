//! How many small durable changes 64 callers get through on SQLite: alone, and beside as many who give up after 1 to
//! 15 ms. `cargo bench -p pavior-store --bench writes`.

// Nobody but a person reads its failures.
#![allow(clippy::unwrap_used)]

use pavior_store::{DatabaseConfig, Store, StoreError};
use sea_orm::{ConnectionTrait as _, Statement};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

const CALLERS: i64 = 64;
const TIME: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
struct Counters {
    store: Store,
    next: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
}

impl Counters {
    async fn insert(&self) -> Result<(), StoreError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.store
            .upkeep("a measurement", move |tx| {
                Box::pin(async move {
                    let text = "INSERT INTO counters (id, value) VALUES ($1, $1)";
                    let backend = tx.get_database_backend();
                    tx.execute_raw(Statement::from_sql_and_values(backend, text, [id.into()])).await?;
                    Ok(())
                })
            })
            .await
    }

    async fn patient(self) -> u64 {
        let mut done = 0;
        while !self.stop.load(Ordering::Relaxed) {
            self.insert().await.unwrap();
            done += 1;
        }
        done
    }

    async fn impatient(self, first: i64) {
        let mut millis = first;
        while !self.stop.load(Ordering::Relaxed) {
            millis = millis % 15 + 1;
            let patience = Duration::from_millis(millis.unsigned_abs());
            let _ = tokio::time::timeout(patience, self.insert()).await;
        }
    }
}

async fn rate(counters: &Counters, impatient: i64) -> f64 {
    counters.stop.store(false, Ordering::Relaxed);
    let begin = Instant::now();
    let leaving: Vec<_> = (0..impatient).map(|n| tokio::spawn(counters.clone().impatient(n))).collect();
    let staying: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(counters.clone().patient())).collect();
    tokio::time::sleep(TIME).await;
    counters.stop.store(true, Ordering::Relaxed);
    let mut done = 0;
    for task in staying {
        done += task.await.unwrap();
    }
    let rate = done as f64 / begin.elapsed().as_secs_f64();
    for task in leaving {
        task.await.unwrap();
    }
    rate
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", dir.path().join("bench.db").display());
    let store = Store::connect(&DatabaseConfig::at(url), "bench").await.unwrap();
    let table = "CREATE TABLE counters (id INTEGER PRIMARY KEY, value INTEGER NOT NULL)";
    let made = store.upkeep::<(), StoreError, _>("a measurement", move |tx| {
        Box::pin(async move { Ok(tx.execute_unprepared(table).await.map(drop)?) })
    });
    made.await.unwrap();
    let counters = Counters { store, next: Arc::new(AtomicI64::new(1)), stop: Arc::default() };
    println!("{:.0} changes/s by {CALLERS} callers", rate(&counters, 0).await);
    println!("{:.0} changes/s beside {CALLERS} who give up", rate(&counters, CALLERS).await);
}
