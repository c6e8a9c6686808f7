//! The endpoint for operators, on a port of its own: gRPC-Web servers answer 400 to plain HTTP.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, TextEncoder};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Condition, Readiness, Report, Severity};

#[derive(Clone)]
struct Admin {
    registry: prometheus::Registry,
    readiness: Readiness,
}

/// Serves `/metrics` (Prometheus text), `/healthz` (200 while the process lives, whatever it depends on) and `/readyz`
/// (200 when calls would work, else 503; every condition with its reason, as JSON, or as text where that is accepted)
/// until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    registry: prometheus::Registry,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let app = router(registry, readiness);
    axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}

/// The routes alone.
pub fn router(registry: prometheus::Registry, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Admin { registry, readiness })
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&admin.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(err) => {
            tracing::error!(error = %err, "metrics do not encode");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let report = admin.readiness.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepted.contains("text/plain") {
        return (status, text(&report)).into_response();
    }
    let conditions: Vec<_> = report.conditions.values().collect();
    let body = json!({ "ready": report.ready, "degraded": report.degraded, "conditions": conditions });
    (status, axum::Json(body)).into_response()
}

/// A line for the whole, and one for each condition.
fn text(report: &Report) -> String {
    let whole = match (report.ready, report.degraded) {
        (true, false) => "ready",
        (true, true) => "ready, degraded",
        (false, _) => "not ready",
    };
    let mut lines = format!("{whole}\n");
    for Condition { role, name, severity, reason, .. } in report.conditions.values() {
        let (state, reason) = match (reason, severity) {
            (None, _) => ("ok", ""),
            (Some(reason), Severity::Blocks) => ("FAILS", reason.as_str()),
            (Some(reason), Severity::Degrades) => ("degraded", reason.as_str()),
        };
        let separator = if reason.is_empty() { "" } else { ": " };
        lines.push_str(&format!("{state} {role}/{name}{separator}{reason}\n"));
    }
    lines
}
