//! The layers, one function each.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::FutureExt;
use http::{HeaderName, HeaderValue, Method as Verb, Request, Response};
use http_body::Body as _;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use opentelemetry::trace::TraceContextExt;
use pavior_core::id_gen::IdGen;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Layer;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{Peer, Stack, rescue as fix};
use crate::body::{OnEnd, Polled, Tap, Tapped, first_message, limited, observe};
use crate::context::{self, REQUEST_ID, RequestContext, Trace};
use crate::methods;
use crate::problem::{ErrorReason, Problem};
use crate::until::until_deadline;

/// What stands for the method of a path that no descriptor has: callers must not make up values of labels.
const OTHER: &str = "other";

fn status_response(problem: Problem) -> Response<Body> {
    Status::from(problem).into_http()
}

pub(super) fn request_id(next: Stack, ids: Arc<dyn IdGen>) -> Stack {
    Stack::from_fn(move |mut request| {
        let context = RequestContext::from_headers(request.headers(), ids.as_ref());
        let value = HeaderValue::from_str(&context.request_id).ok();
        request.extensions_mut().insert(context);
        let answer = next.handle(request);
        answer
            .map(|mut response| {
                if let Some(value) = value {
                    response.headers_mut().insert(REQUEST_ID, value);
                }
                response
            })
            .boxed()
    })
}

pub(super) fn trace(next: Stack) -> Stack {
    Stack::from_fn(move |mut request| {
        let Some(span) = server_span(&mut request) else { return next.handle(request) };
        let next = next.clone();
        let outer = span.clone();
        let work = async move {
            let recorded = span.clone();
            let on_end = OnEnd::new(move |code: Code| {
                recorded.record("rpc.grpc.status_code", code as i32);
            });
            let response = next.handle(request).await;
            observe(response, span, on_end)
        };
        work.instrument(outer).boxed()
    })
}

/// The span of a call, with the caller's span as its parent; `None` when nobody listens.
fn server_span(request: &mut Request<Body>) -> Option<Span> {
    let method = methods::method(request.uri().path());
    let (service, name) = method.map_or((OTHER, OTHER), |method| (&*method.service, &*method.method));
    let context = request.extensions().get::<RequestContext>()?;
    // No parent from this task: in the same process the caller's trace comes in the metadata as well.
    let span = tracing::info_span!(
        parent: None,
        "rpc",
        otel.name = method.map_or(OTHER, |method| &*method.full),
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = name,
        rpc.grpc.status_code = tracing::field::Empty,
        request_id = context.request_id,
    );
    if span.is_disabled() {
        return None;
    }
    let remote = context.trace.as_ref().map(Trace::span_context);
    if let Some(remote) = remote {
        // Fails only for spans that OpenTelemetry does not see, and those need no parent.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
    }
    let otel = span.context();
    let own = otel.span().span_context().clone();
    if own.is_valid()
        && let Some(context) = request.extensions_mut().get_mut::<RequestContext>()
    {
        let state = context.trace.take().and_then(|trace| trace.state);
        context.trace =
            Some(Trace { trace_id: own.trace_id(), span_id: own.span_id(), flags: own.trace_flags(), state });
    }
    Some(span)
}

pub(super) fn metrics(next: Stack, server: &'static str, meter: Option<&Meter>) -> Stack {
    let Some(meter) = meter else { return next };
    let duration = meter
        .f64_histogram("rpc.server.call.duration")
        .with_unit("s")
        .with_description("time from the request to the end of the answer")
        .build();
    let active = meter
        .i64_up_down_counter("rpc.server.active_calls")
        .with_description("calls that are being worked on")
        .build();
    Stack::from_fn(move |request| {
        let method = methods::method(request.uri().path());
        let (service, name) = method.map_or((OTHER, OTHER), |method| (&*method.service, &*method.method));
        let started = Instant::now();
        let (duration, active) = (duration.clone(), active.clone());
        active.add(1, &[KeyValue::new("pavior.server", server)]);
        let on_end = OnEnd::new(move |code: Code| {
            active.add(-1, &[KeyValue::new("pavior.server", server)]);
            let labels = [
                KeyValue::new("pavior.server", server),
                KeyValue::new("rpc.service", service),
                KeyValue::new("rpc.method", name),
                KeyValue::new("rpc.response.status_code", code_name(code)),
            ];
            duration.record(started.elapsed().as_secs_f64(), &labels);
        });
        next.handle(request).map(|response| observe(response, Span::none(), on_end)).boxed()
    })
}

pub(super) fn access_log(next: Stack, server: &'static str) -> Stack {
    Stack::from_fn(move |request| {
        if !tracing::enabled!(target: "pavior::access", tracing::Level::INFO) {
            return next.handle(request);
        }
        let method = methods::method(request.uri().path()).map_or(OTHER, |method| &*method.full);
        let context = request.extensions().get::<RequestContext>();
        let request_id = context.map(|context| context.request_id.clone()).unwrap_or_default();
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
        let started = Instant::now();
        let span = Span::current();
        let on_end = OnEnd::new(move |code: Code| {
            let code = code_name(code);
            let elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            span.in_scope(|| {
                tracing::info!(
                    target: "pavior::access", server, method, code, elapsed_us, request_id,
                    peer = peer.map(tracing::field::display), "call"
                );
            });
        });
        next.handle(request).map(|response| observe(response, Span::none(), on_end)).boxed()
    })
}

/// The code as it is written in the gRPC documents.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

pub(super) fn rescue(next: Stack) -> Stack {
    Stack::from_fn(move |request| {
        next.handle(request)
            .map(|mut response| {
                if fix::fix_headers(response.headers_mut()) {
                    return response;
                }
                response.map(fix::rescued)
            })
            .boxed()
    })
}

pub(super) fn catch_panic(next: Stack) -> Stack {
    Stack::from_fn(move |request| {
        let next = next.clone();
        // `handle` itself may panic, not only its future.
        let work = async move { next.handle(request).await };
        AssertUnwindSafe(work)
            .catch_unwind()
            .map(|caught| match caught {
                Ok(response) if crate::body::code_in(response.headers()).is_some() => response,
                Ok(response) => response.map(|body| Tapped::body(body, Catch)),
                Err(panic) => status_response(panic_problem(panic.as_ref())),
            })
            .boxed()
    })
}

fn panic_problem(panic: &(dyn std::any::Any + Send)) -> Problem {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Problem::internal(format!("panic: {text}"))
}

/// Makes an error of a panic.
struct Catch;

impl Tap for Catch {
    fn poll(&mut self, inner: &mut Body, cx: &mut Context<'_>) -> Polled {
        match std::panic::catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *inner).poll_frame(cx))) {
            Ok(polled) => polled,
            Err(panic) => {
                // What panicked is in an unknown state and is not asked again.
                *inner = Body::empty();
                Poll::Ready(Some(Err(panic_problem(panic.as_ref()).into())))
            }
        }
    }
}

/// Refuses at once what is over the limits. A stream counts until its first answer, not for its whole life.
pub(super) fn load_shed(next: Stack, max_concurrency: usize, max_message_bytes: usize) -> Stack {
    let places = Arc::new(Semaphore::new(max_concurrency.min(Semaphore::MAX_PERMITS)));
    Stack::from_fn(move |request| {
        let Ok(place) = places.clone().try_acquire_owned() else {
            let problem = Problem::resource_exhausted(ErrorReason::Overloaded, "too many requests at once")
                .retry_in(Duration::from_secs(1));
            return std::future::ready(status_response(problem)).boxed();
        };
        let request = request.map(|body| limited(body, max_message_bytes));
        next.handle(request)
            .map(|response| {
                drop(place);
                response
            })
            .boxed()
    })
}

/// The earlier of the caller's `grpc-timeout` and ours; also where the context becomes that of the task.
pub(super) fn deadline(next: Stack, default: Duration, max: Duration) -> Stack {
    Stack::from_fn(move |mut request| {
        let streams = methods::method(request.uri().path()).is_some_and(|method| !method.unary());
        let limit = match (context::parse_timeout(request.headers()), streams) {
            (Some(asked), false) => Some(asked.min(max)),
            (None, false) => Some(default.min(max)),
            (asked, true) => asked,
        };
        let Some(context) = request.extensions_mut().get_mut::<RequestContext>() else {
            return next.handle(request);
        };
        context.deadline = limit.map(|limit| Instant::now() + limit);
        let context = context.clone();
        let next = next.clone();
        async move {
            let deadline = context.deadline;
            let work = context::scope(context.clone(), async move { next.handle(request).await });
            let response = match deadline {
                // A transaction that has begun runs to its end all the same: whoever asks again with the same request id
                // hears what came of it.
                Some(deadline) => match tokio::time::timeout_at(deadline, work).await {
                    Ok(response) => response,
                    Err(_) => return status_response(Problem::deadline_exceeded()),
                },
                None => work.await,
            };
            if crate::body::code_in(response.headers()).is_some() {
                return response;
            }
            response.map(|body| until_deadline(body, context))
        }
        .boxed()
    })
}

/// Refuses values that nest too deep, or hold numbers that would be changed. Only the one message of a call that may hold values is waited for.
pub(super) fn values(next: Stack, reads_message: bool) -> Stack {
    if !reads_message {
        return next;
    }
    Stack::from_fn(move |request| {
        let method = methods::method(request.uri().path());
        let Some(method) = method.filter(|m| !m.client_streaming && crate::values::concerns(&m.input)) else {
            return next.handle(request);
        };
        let next = next.clone();
        async move {
            let (parts, body) = request.into_parts();
            let (message, body) = match first_message(body).await {
                Ok(read) => read,
                Err(status) => return status.into_http(),
            };
            // A compressed one is not taken by our services, and its decoder says so.
            match message.map_or(Ok(()), |message| crate::values::check(&method.input, &message)) {
                Ok(()) => next.handle(Request::from_parts(parts, body)).await,
                Err(problem) => status_response(problem),
            }
        }
        .boxed()
    })
}

const WEB_REQUEST_HEADERS: [&str; 12] = [
    "content-type",
    "content-encoding",
    "connect-protocol-version",
    "connect-timeout-ms",
    "last-event-id",
    "x-grpc-web",
    "x-user-agent",
    "grpc-timeout",
    "authorization",
    "traceparent",
    "tracestate",
    "x-request-id",
];
const WEB_RESPONSE_HEADERS: [&str; 8] = [
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-retry-pushback-ms",
    "retry-after",
    "allow",
    "x-request-id",
    "x-pavior-policy-decision",
];

/// What browsers ask before they send a request of another origin. Header names are listed: `*` never covers `authorization` in browsers (Fetch standard).
pub(super) fn cors(next: Stack, origins: &[String]) -> Stack {
    use tower_http::cors::{AllowOrigin, CorsLayer};
    let origins: Vec<HeaderValue> = origins
        .iter()
        .filter_map(|origin| {
            HeaderValue::from_str(origin)
                .inspect_err(|_| tracing::error!(origin, "not an origin; it matches no browser"))
                .ok()
        })
        .collect();
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Verb::GET, Verb::POST, Verb::PUT, Verb::PATCH, Verb::DELETE])
        .allow_headers(WEB_REQUEST_HEADERS.map(HeaderName::from_static))
        .expose_headers(WEB_RESPONSE_HEADERS.map(HeaderName::from_static))
        .max_age(Duration::from_secs(3600));
    Stack::new(cors.layer(next))
}
