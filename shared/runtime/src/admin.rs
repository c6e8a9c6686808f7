//! The endpoint for operators, on a port of its own: gRPC-Web servers answer 400 to plain HTTP.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, TextEncoder};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Readiness;

#[derive(Clone)]
struct Admin {
    registry: prometheus::Registry,
    readiness: Readiness,
}

/// Serves `/metrics` (Prometheus text), `/healthz` (200 while the process lives) and `/readyz` (200 when every check
/// passes, else 503 with the names of the failing ones) until `shutdown`.
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

async fn ready(State(admin): State<Admin>) -> Response {
    let report = admin.readiness.report();
    let failing: Vec<_> =
        report.checks.iter().filter_map(|(name, wrong)| wrong.as_ref().map(|_| *name)).collect();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({ "ready": report.ready, "failing": failing }))).into_response()
}
