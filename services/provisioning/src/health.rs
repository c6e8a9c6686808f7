//! Health means progress: the database answers, steps are taken where there is room, claims are freed, operations end.
//! What stands still is named, and how long it has stood is a metric. That audit events are delivered is for the relay
//! to say.

use std::time::Duration;

use opentelemetry::metrics::{Gauge, Meter};
use pavior_runtime::HealthCheck;

use crate::app::App;
use crate::store::Waiting;

/// Metrics of what waits; recorded whenever health is asked for.
#[derive(Clone)]
struct Gauges {
    claimable: Gauge<f64>,
    unfinished: Gauge<f64>,
    lapsed: Gauge<u64>,
    stuck: Gauge<u64>,
}

impl Gauges {
    fn new(meter: &Meter) -> Self {
        let seconds = |name: &'static str, what: &'static str| {
            meter.f64_gauge(name).with_unit("s").with_description(what).build()
        };
        Self {
            claimable: seconds(
                "pavior.provisioning.step.oldest_claimable",
                "Age of the oldest step that could be taken",
            ),
            unfinished: seconds(
                "pavior.provisioning.operation.oldest_unfinished",
                "Age of the oldest operation under way",
            ),
            lapsed: meter
                .u64_gauge("pavior.provisioning.claim.lapsed")
                .with_description("Claims whose leases have ended and that are not freed")
                .build(),
            stuck: meter
                .u64_gauge("pavior.provisioning.operation.stuck")
                .with_description("Operations that wait for an operator")
                .build(),
        }
    }
}

fn seconds(waiting: Option<&Waiting>) -> f64 {
    waiting.map_or(0.0, |waiting| waiting.micros as f64 / 1e6)
}

/// An error that names what has waited for longer than it may.
fn within(waiting: Option<Waiting>, limit: Duration, what: &str) -> Result<(), String> {
    let limit = i64::try_from(limit.as_micros()).unwrap_or(i64::MAX);
    match waiting {
        Some(waiting) if waiting.micros > limit => {
            Err(format!("{} {what} {} s", waiting.what, waiting.micros / 1_000_000))
        }
        _ => Ok(()),
    }
}

/// What must be well for the service to be ready.
pub(crate) fn checks(app: &App, meter: &Meter) -> Vec<HealthCheck> {
    let gauges = Gauges::new(meter);
    let stall = Duration::from_millis(app.config.max_stall_ms);
    vec![
        database(app),
        // Until the audit service has answered once, changes are taken and nothing is carried out.
        pavior_relay::compared_check(app.db.store(), "provisioning history", "operations wait"),
        steps(app, stall),
        backlog(app, &gauges, stall),
        operations(app, &gauges, stall),
        claims(app, &gauges, stall),
        stuck(app, &gauges),
        drivers(app),
    ]
}

fn database(app: &App) -> HealthCheck {
    let db = app.db.clone();
    HealthCheck::new("provisioning database", move || {
        let db = db.clone();
        async move { db.store().check().await }
    })
}

/// What nobody takes although there is room for it: the engine stands still.
fn steps(app: &App, stall: Duration) -> HealthCheck {
    let app = app.clone();
    HealthCheck::new("provisioning progress", move || {
        let app = app.clone();
        async move {
            // What waits for the histories is told of elsewhere.
            let free = app.engine.free_for().filter(|_| app.db.history().fits());
            let Some(free) = free else { return Ok(()) };
            let of = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
            let config = &app.config;
            let limits = (of(config.max_running_per_operation), of(config.max_running_per_organization));
            let oldest = app.db.oldest_claimable_unscoped(&away(&app), Some(limits)).await;
            let oldest = oldest.map_err(|error| error.to_string())?.map(|waiting| {
                let free = i64::try_from(free.as_micros()).unwrap_or(i64::MAX);
                Waiting { micros: waiting.micros.min(free), ..waiting }
            });
            within(oldest, stall, "waits for a worker since")
        }
    })
}

/// What waits because as much is under way as may be: more work than workers.
fn backlog(app: &App, gauges: &Gauges, stall: Duration) -> HealthCheck {
    let (app, gauge) = (app.clone(), gauges.claimable.clone());
    let check = HealthCheck::new("provisioning backlog", move || {
        let (app, gauge) = (app.clone(), gauge.clone());
        async move {
            let oldest = app.db.oldest_claimable_unscoped(&away(&app), None).await;
            let oldest = oldest.map_err(|error| error.to_string())?;
            gauge.record(seconds(oldest.as_ref()), &[]);
            within(oldest, stall, "waits for its turn since")
        }
    });
    check.degrades()
}

fn away(app: &App) -> Vec<String> {
    app.engine.drivers_away().into_iter().map(|away| away.driver).collect()
}

fn operations(app: &App, gauges: &Gauges, stall: Duration) -> HealthCheck {
    let (app, gauge) = (app.clone(), gauges.unfinished.clone());
    // A driver that is told to stop has its grace.
    let limit = stall + Duration::from_millis(app.config.cancel_grace_ms);
    HealthCheck::new("provisioning operations", move || {
        let (app, gauge) = (app.clone(), gauge.clone());
        async move {
            let oldest = app.db.oldest_unfinished_unscoped().await.map_err(|error| error.to_string())?;
            gauge.record(seconds(oldest.as_ref()), &[]);
            let late = app.db.latest_unscoped().await.map_err(|error| error.to_string())?;
            within(late, limit, "should have ended since")
        }
    })
}

fn claims(app: &App, gauges: &Gauges, stall: Duration) -> HealthCheck {
    let (app, gauge) = (app.clone(), gauges.lapsed.clone());
    HealthCheck::new("provisioning leases", move || {
        let (app, gauge) = (app.clone(), gauge.clone());
        async move {
            let (count, first) = app.db.lapsed_claims_unscoped().await.map_err(|error| error.to_string())?;
            gauge.record(count, &[]);
            within(first, stall, "has ended and is not freed since")
        }
    })
}

/// What goes on only when an operator takes it up. Everything else works.
fn stuck(app: &App, gauges: &Gauges) -> HealthCheck {
    let (app, gauge) = (app.clone(), gauges.stuck.clone());
    let check = HealthCheck::new("provisioning stuck", move || {
        let (app, gauge) = (app.clone(), gauge.clone());
        async move {
            let (count, first) = app.db.stuck_unscoped().await.map_err(|error| error.to_string())?;
            gauge.record(count, &[]);
            let Some(Waiting { what, micros }) = first else { return Ok(()) };
            let (noun, verb) = if count == 1 { ("operation", "is") } else { ("operations", "are") };
            let since = micros / 1_000_000;
            Err(format!(
                "{count} {noun} {verb} stuck, {what} since {since} s: `pavior doctor` names what to do"
            ))
        }
    });
    check.degrades()
}

/// Steps of a driver that is away wait, and calls work.
fn drivers(app: &App) -> HealthCheck {
    let app = app.clone();
    let check = HealthCheck::new("provisioning drivers", move || {
        let unwell: Vec<String> =
            app.drivers_unwell().iter().map(|(driver, why)| format!("`{driver}`: {why}")).collect();
        async move { if unwell.is_empty() { Ok(()) } else { Err(unwell.join("; ")) } }
    });
    check.degrades()
}
