//! Closed-loop measurement: so many callers, each with one call at a time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) p50: Duration,
    pub(crate) per_second: f64,
}

/// Makes `calls` calls by `callers` callers, after a tenth as many to warm up.
pub(crate) async fn closed_loop<F, Fut>(calls: usize, callers: usize, call: F) -> Result<Figures>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    for _ in 0..calls / 10 {
        call().await?;
    }
    let left = Arc::new(AtomicUsize::new(calls));
    let started = Instant::now();
    let loops = (0..callers).map(|_| {
        let left = left.clone();
        let call = &call;
        async move {
            let mut times = Vec::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                let begun = Instant::now();
                call().await?;
                times.push(begun.elapsed());
            }
            anyhow::Ok(times)
        }
    });
    let mut times: Vec<Duration> =
        futures::future::try_join_all(loops).await?.into_iter().flatten().collect();
    let elapsed = started.elapsed();
    times.sort_unstable();
    let p50 = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok(Figures { p50, per_second: times.len() as f64 / elapsed.as_secs_f64() })
}
