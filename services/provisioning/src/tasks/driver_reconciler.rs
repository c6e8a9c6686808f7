//! Tells drivers what is declared, and asks how they are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use pavior_driver::Driver;
use pavior_runtime::Task;
use tokio::time::Instant;

use crate::app::App;

/// How long a start waits for the audit service before drivers are told what is declared for all that.
const PATIENCE: Duration = Duration::from_secs(60);

/// At the start as soon as the engine has looked at what a former process left, and the database is known not to be an
/// older copy; then again and again. While the audit service is away the wait has an end: drivers then bring back what
/// ran before and is still declared, which begins nothing new.
pub(crate) fn task(app: App) -> Task {
    Task::new("driver_reconciler", move |cancel| async move {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            () = app.engine.recovered() => {}
        }
        let history = app.db.history();
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            _ = tokio::time::timeout(PATIENCE, history.fitting()) => {}
        }
        let (app, history) = (&app, &history);
        let tell = each(app, |driver| async move {
            if history.apart().is_some() {
                tracing::debug!("drivers are not told what an older copy declares");
            } else if let Err(error) = app.tell(&*driver).await {
                let driver = driver.info().id;
                tracing::warn!(driver, %error, "a driver could not be told what is declared and will be again");
            }
        });
        let ask = each(app, |driver| async move { app.ask_how(&*driver).await });
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tell => {}
            () = ask => {}
        }
        Ok(())
    })
}

/// Does the same with every driver that there is, again and again, and with each in its own time: one that is slow, or
/// never comes to an end, holds up no other.
async fn each<F: Future<Output = ()>>(app: &App, act: impl Fn(Arc<dyn Driver>) -> F) {
    let pause = Duration::from_millis(app.config.driver_poll_ms);
    let (mut busy, mut going) = (BTreeSet::new(), FuturesUnordered::new());
    loop {
        for driver in app.engine.drivers().all() {
            let id = driver.info().id;
            if busy.insert(id.clone()) {
                let act = act(driver);
                going.push(async {
                    act.await;
                    id
                });
            }
        }
        let next = Instant::now() + pause;
        while let Ok(Some(id)) = tokio::time::timeout_at(next, going.next()).await {
            busy.remove(&id);
        }
        tokio::time::sleep_until(next).await;
    }
}
