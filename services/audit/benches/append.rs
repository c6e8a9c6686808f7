//! How many records become durable in a second: one caller alone, then 64 at once, on SQLite with `synchronous=FULL`.
//!
//! Prints figures of one run; a ratio between the two says more than either. `cargo bench -p pavior-audit`.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../tests/it/support.rs"]
#[allow(dead_code)]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{Fixture, Running, event};

/// Appends one record after the other until time is up; returns how many.
async fn caller(
    fixture: Arc<Fixture>,
    running: Arc<Running>,
    id: usize,
    until: Instant,
) -> (u64, Vec<Duration>) {
    let mut client = fixture.client(&running, "catalog");
    let epoch = format!("caller-{id}-{until:?}");
    let mut waits = Vec::new();
    let mut next = 1;
    while Instant::now() < until {
        let start = Instant::now();
        let events = vec![("acme", next, event("acme", next))];
        let answer = fixture.append(&mut client, "catalog", &epoch, events).await.unwrap();
        assert_eq!(answer.into_inner().acknowledged_sequence, next);
        waits.push(start.elapsed());
        next += 1;
    }
    (next as u64 - 1, waits)
}

async fn measure(fixture: &Arc<Fixture>, running: &Arc<Running>, callers: usize, seconds: u64) -> f64 {
    let start = Instant::now();
    let until = start + Duration::from_secs(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for id in 0..callers {
        tasks.spawn(caller(fixture.clone(), running.clone(), id, until));
    }
    let (mut records, mut waits) = (0, Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (count, took) = done.unwrap();
        records += count;
        waits.extend(took);
    }
    let rate = records as f64 / start.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |share: f64| waits[(waits.len() as f64 * share) as usize];
    println!("{callers:>3} callers: {rate:>8.0} records/s, p50 {:?}, p99 {:?}", at(0.50), at(0.99));
    rate
}

fn main() {
    let seconds = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(3);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let fixture = Arc::new(Fixture::new(pavior_testkit::db::sqlite()));
        let running = Arc::new(fixture.start().await);
        let alone = measure(&fixture, &running, 1, seconds).await;
        let many = measure(&fixture, &running, 64, seconds).await;
        println!("group commit: {:.1} times one caller", many / alone);
        let start = Instant::now();
        let report = pavior_audit_verifier::verify_database(&fixture.db.url, None).await.unwrap();
        let rate = report.records() as f64 / start.elapsed().as_secs_f64();
        println!("verified: {} records, {rate:.0} records/s", report.records());
        Arc::into_inner(running).unwrap().stop().await;
    });
}
