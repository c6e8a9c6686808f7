//! Repeating calls: UNAVAILABLE only (AIP-194), and only where it is safe.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use super::Client;
use crate::body::code_in;

/// Marks one call as safe to repeat: put it into the extensions of a `tonic::Request` whose message carries a
/// `request_id`, or that has the same effect when it is carried out twice. Methods declared `NO_SIDE_EFFECTS` need
/// no mark. Never mark calls whose request is a stream.
#[derive(Debug, Clone, Copy)]
pub struct RetrySafe;

const FULL: i64 = 10_000;
const FAILURE: i64 = 1_000;
const SUCCESS: i64 = 100;

/// Stops retries while most calls fail (gRFC A6: `maxTokens` 10, `tokenRatio` 0.1), counted in thousandths.
#[derive(Debug)]
pub(super) struct Throttle(AtomicI64);

impl Default for Throttle {
    fn default() -> Self {
        Self(AtomicI64::new(FULL))
    }
}

impl Throttle {
    fn success(&self) {
        if self.0.load(Ordering::Relaxed) < FULL {
            self.0.fetch_add(SUCCESS, Ordering::Relaxed);
        }
    }

    /// Counts a failure; true when another attempt is allowed.
    fn failure(&self) -> bool {
        let before = self.0.fetch_sub(FAILURE, Ordering::Relaxed);
        if before <= 0 {
            self.0.fetch_add(FAILURE, Ordering::Relaxed);
        }
        before - FAILURE > FULL / 2
    }
}

/// Sends a request with a single message, again after UNAVAILABLE.
pub(super) async fn send(
    client: &Client,
    request: Request<Body>,
    deadline: Option<Instant>,
) -> Result<Response<Body>, Status> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    // gRFC A6's numbers, with jitter.
    let mut delays = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(1))
        .with_factor(2.0)
        .with_max_times(client.shared.options.attempts - 1)
        .with_jitter()
        .build();
    loop {
        let mut request = Request::new(Body::new(Full::new(body.clone())));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.version_mut() = parts.version;
        *request.headers_mut() = parts.headers.clone();
        let sent = client.attempt(request, deadline).await;
        let Some(pushback) = unavailable(&sent) else {
            client.shared.throttle.success();
            return sent;
        };
        let allowed = client.shared.throttle.failure();
        let delay = match pushback {
            Pushback::None => delays.next(),
            Pushback::After(after) => delays.next().map(|_| after),
            Pushback::Never => None,
        };
        let Some(delay) = delay.filter(|_| allowed) else { return sent };
        if deadline.is_some_and(|deadline| Instant::now() + delay >= deadline) {
            return sent;
        }
        tracing::debug!(path = parts.uri.path(), ?delay, "unavailable, trying again");
        tokio::time::sleep(delay).await;
    }
}

/// What the server says about trying again.
enum Pushback {
    None,
    After(Duration),
    Never,
}

/// `Some` when the call failed with UNAVAILABLE before any answer.
fn unavailable(sent: &Result<Response<Body>, Status>) -> Option<Pushback> {
    match sent {
        Err(status) if status.code() == Code::Unavailable => Some(Pushback::None),
        Ok(response) if code_in(response.headers()) == Some(Code::Unavailable) => {
            Some(pushback(response.headers()))
        }
        _ => None,
    }
}

fn pushback(headers: &HeaderMap) -> Pushback {
    let Some(value) = headers.get("grpc-retry-pushback-ms") else { return Pushback::None };
    match value.to_str().ok().and_then(|text| text.parse().ok()) {
        Some(millis) => Pushback::After(Duration::from_millis(millis)),
        None => Pushback::Never,
    }
}
