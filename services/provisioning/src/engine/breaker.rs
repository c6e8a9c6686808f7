//! Drivers that are away. Their steps wait, without a call and without losing an attempt, until the driver itself says
//! that it is back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, UpDownCounter};
use pavior_driver::{Driver, Health};
use tokio::time::Instant;

use super::Engine;

/// The longest that a driver may take to say how it is.
const ANSWER: Duration = Duration::from_secs(5);

/// A driver that is away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// Its id.
    pub driver: String,
    /// For how long it has been.
    pub since: Duration,
    /// What it, or the way to it, said.
    pub why: String,
}

/// Which drivers are away, as far as this process knows.
pub(crate) struct Breakers {
    away: Mutex<BTreeMap<String, (Instant, String)>>,
    gauge: UpDownCounter<i64>,
}

impl Breakers {
    pub(crate) fn new(meter: &Meter) -> Self {
        let gauge = meter
            .i64_up_down_counter("pavior.provisioning.driver.away")
            .with_description("Drivers that do not answer; their steps wait")
            .build();
        Self { away: Mutex::default(), gauge }
    }

    fn away(&self) -> MutexGuard<'_, BTreeMap<String, (Instant, String)>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ids of drivers whose steps are not to be taken now.
    pub(crate) fn ids(&self) -> Arc<[String]> {
        self.away().keys().cloned().collect()
    }

    /// Why the driver is away, if it is.
    pub(crate) fn why(&self, driver: &str) -> Option<String> {
        self.away().get(driver).map(|(_, why)| why.clone())
    }

    /// True when this is news.
    fn open(&self, driver: &str, why: &str) -> bool {
        let news = self.away().insert(driver.to_owned(), (Instant::now(), why.to_owned())).is_none();
        if news {
            self.gauge.add(1, &[KeyValue::new("driver", driver.to_owned())]);
        }
        news
    }

    fn close(&self, driver: &str) {
        if self.away().remove(driver).is_some() {
            self.gauge.add(-1, &[KeyValue::new("driver", driver.to_owned())]);
        }
    }
}

impl Engine {
    /// Drivers that are away, in order of their ids.
    pub fn drivers_away(&self) -> Vec<Away> {
        let away = self.breakers.away();
        let each = away.iter().map(|(driver, (begin, why))| Away {
            driver: driver.clone(),
            since: begin.elapsed(),
            why: why.clone(),
        });
        each.collect()
    }

    /// Asks a driver whose call did not work out whether it is there at all. When it is not, none of its steps is
    /// taken until it is back.
    pub(crate) async fn is_away(&self, id: &str, driver: &Arc<dyn Driver>) -> bool {
        if self.breakers.why(id).is_some() {
            return true;
        }
        let Health::Down(why) = self.health_of(driver).await else { return false };
        if self.breakers.open(id, &why) {
            tracing::warn!(driver = id, why, "the driver is away; its steps wait");
            let (engine, id, driver) = (self.clone(), id.to_owned(), driver.clone());
            // Not one of the tasks that a shutdown waits for.
            tokio::spawn(async move {
                let dead = engine.dead.clone();
                tokio::select! {
                    () = dead.cancelled() => {}
                    () = engine.await_return(&id, &driver) => {}
                }
            });
        }
        true
    }

    /// Asks again and again, with growing pauses, and lets the steps go on once the driver is back.
    async fn await_return(&self, id: &str, driver: &Arc<dyn Driver>) {
        for asked in 1_u32.. {
            tokio::time::sleep(self.pause(asked)).await;
            if self.health_of(driver).await == Health::Ok {
                break;
            }
        }
        self.breakers.close(id);
        tracing::info!(driver = id, "the driver is back");
        self.wake();
    }

    async fn health_of(&self, driver: &Arc<dyn Driver>) -> Health {
        // Whoever asks holds a claim, which must not end over the question.
        let limit = ANSWER.min(Duration::from_millis(self.config.lease_ms / 3));
        let answer = tokio::time::timeout(limit, driver.health()).await;
        answer.unwrap_or_else(|_| Health::Down("the driver does not answer".to_owned()))
    }
}
