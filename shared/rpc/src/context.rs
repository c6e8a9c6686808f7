//! What goes along with a request through the whole system: its id, its deadline and its trace.
//!
//! The server stack puts a [`RequestContext`] into the request's extensions and into a task-local; the client layers
//! of [`crate::transport`] read the task-local, so that handlers pass nothing on by hand. Nothing here is trusted:
//! identity is carried only as a signed token in the metadata.

use std::future::Future;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use pavior_core::id_gen::IdGen;
use tokio::time::Instant;

/// The request's id: taken from the caller when well-formed, and always in the answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C Trace Context, level 1.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// W3C Trace Context, level 1.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// W3C Baggage.
pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// The time that is left for a call.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

const MAX_REQUEST_ID: usize = 128;
const MAX_BAGGAGE: usize = 8192;

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// The W3C trace position of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// 16 bytes, never all zero.
    pub trace_id: TraceId,
    /// The parent span: 8 bytes, never all zero.
    pub span_id: SpanId,
    /// Bit 0: sampled.
    pub flags: TraceFlags,
    /// `tracestate`, passed on as it came.
    pub state: Option<HeaderValue>,
}

impl Trace {
    /// Reads `traceparent`; anything malformed counts as absent (W3C Trace Context §3.2).
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(TRACEPARENT)?.to_str().ok()?;
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let future_version = version != "00";
        if version.len() != 2 || version == "ff" || (!future_version && parts.next().is_some()) {
            return None;
        }
        if trace.len() != 32 || span.len() != 16 || flags.len() != 2 {
            return None;
        }
        let is_hex = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if ![version, trace, span, flags].into_iter().all(is_hex) {
            return None;
        }
        let trace_id = TraceId::from_hex(trace).ok().filter(|id| *id != TraceId::INVALID)?;
        let span_id = SpanId::from_hex(span).ok().filter(|id| *id != SpanId::INVALID)?;
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & 1);
        Some(Self { trace_id, span_id, flags, state: headers.get(TRACESTATE).cloned() })
    }

    /// As the remote parent of a span.
    pub fn span_context(&self) -> SpanContext {
        let state = self.state.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let state = state.parse::<TraceState>().unwrap_or_default();
        SpanContext::new(self.trace_id, self.span_id, self.flags, true, state)
    }

    /// The value of `traceparent`.
    pub fn traceparent(&self) -> Option<HeaderValue> {
        let text = format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags.to_u8());
        HeaderValue::try_from(text).ok()
    }
}

/// What goes along with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestContext {
    /// The id that the caller gave or the server made.
    pub request_id: String,
    /// When the answer is of no more use.
    pub deadline: Option<Instant>,
    /// Where the request stands in a trace.
    pub trace: Option<Trace>,
    /// `baggage`, passed on as it came.
    pub baggage: Option<HeaderValue>,
}

impl RequestContext {
    /// A context for work that no request asked for.
    pub fn background(ids: &dyn IdGen) -> Self {
        Self { request_id: ids.uuid().simple().to_string(), deadline: None, trace: None, baggage: None }
    }

    /// Reads a request's headers; the id is the caller's when well-formed, else the trace id, else a new one.
    pub fn from_headers(headers: &HeaderMap, ids: &dyn IdGen) -> Self {
        let trace = Trace::from_headers(headers);
        let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        let request_id = match (given.filter(|id| is_request_id(id)), &trace) {
            (Some(id), _) => id.to_owned(),
            (None, Some(trace)) => trace.trace_id.to_string(),
            (None, None) => ids.uuid().simple().to_string(),
        };
        let baggage = headers.get(BAGGAGE).filter(|value| value.len() <= MAX_BAGGAGE).cloned();
        Self { request_id, deadline: None, trace, baggage }
    }

    /// The same with a time limit from now on, if that is earlier than the present deadline.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        let deadline = Instant::now() + limit;
        self.deadline = Some(self.deadline.map_or(deadline, |present| present.min(deadline)));
        self
    }

    /// The time that is left; `None` when there is no deadline, zero when it has passed.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The trace id as hex, or nothing.
    pub fn trace_id(&self) -> Option<String> {
        self.trace.as_ref().map(|trace| trace.trace_id.to_string())
    }
}

/// The context of the request that this task works on.
pub fn current() -> Option<RequestContext> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Reads the current context without copying it.
pub fn with_current<T>(mut read: impl FnMut(Option<&RequestContext>) -> T) -> T {
    match CURRENT.try_with(|context| read(Some(context))) {
        Ok(value) => value,
        Err(_) => read(None),
    }
}

/// The id of the request that this task works on; empty outside of requests.
pub fn request_id() -> String {
    with_current(|context| context.map(|context| context.request_id.clone()).unwrap_or_default())
}

/// Runs `future` under `context`.
pub fn scope<F: Future>(context: RequestContext, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(context, future)
}

/// Runs `f` under `context`; for the polling of streams.
pub(crate) fn sync_scope<T>(context: RequestContext, f: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(context, f)
}

/// The context that the server stack put into a request.
pub fn of<T>(request: &tonic::Request<T>) -> Option<&RequestContext> {
    request.extensions().get::<RequestContext>()
}

/// A new value for the `request_id` field of mutations (AIP-155), which has the format UUID4.
pub fn new_request_id(ids: &dyn IdGen) -> String {
    uuid::Builder::from_random_bytes(ids.uuid().into_bytes()).into_uuid().to_string()
}

/// Short, printable and free of what could break a log line.
fn is_request_id(id: &str) -> bool {
    (1..=MAX_REQUEST_ID).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/'))
}

/// Reads `grpc-timeout` (at most eight digits and a unit); malformed counts as absent.
pub fn parse_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// The value of `grpc-timeout`, in the finest unit that eight digits hold, rounded down.
pub fn format_timeout(timeout: Duration) -> Option<HeaderValue> {
    const LIMIT: u128 = 100_000_000;
    let (amount, unit) = if timeout.as_micros() < LIMIT {
        (timeout.as_micros(), 'u')
    } else if timeout.as_millis() < LIMIT {
        (timeout.as_millis(), 'm')
    } else {
        (u128::from(timeout.as_secs()).min(LIMIT - 1), 'S')
    };
    HeaderValue::try_from(format!("{amount}{unit}")).ok()
}

#[cfg(test)]
mod tests {
    use pavior_core::id_gen::SeededIds;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[test]
    fn timeouts_round_trip_and_malformed_ones_are_ignored() {
        for millis in [1, 250, 30_000, 200_000, 900_000_000] {
            let timeout = Duration::from_millis(millis);
            let mut map = HeaderMap::new();
            map.insert(GRPC_TIMEOUT, format_timeout(timeout).unwrap());
            assert_eq!(parse_timeout(&map), Some(timeout));
        }
        for bad in ["", "S", "1", "1x", "123456789S", "-1S", "1.5S", "é"] {
            let mut map = HeaderMap::new();
            map.insert(GRPC_TIMEOUT, HeaderValue::from_bytes(bad.as_bytes()).unwrap());
            assert_eq!(parse_timeout(&map), None, "{bad}");
        }
    }

    #[test]
    fn malformed_traceparent_counts_as_absent() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = Trace::from_headers(&headers(&[("traceparent", good)])).unwrap();
        assert_eq!(trace.traceparent().unwrap(), good);
        let future = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert!(Trace::from_headers(&headers(&[("traceparent", future)])).is_some());
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "zz-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-+1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert_eq!(Trace::from_headers(&headers(&[("traceparent", bad)])), None, "{bad}");
        }
    }

    #[test]
    fn request_id_is_the_callers_else_the_trace_id_else_new() {
        let ids = SeededIds::new(1);
        let trace = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let id =
            |pairs: &[(&'static str, &str)]| RequestContext::from_headers(&headers(pairs), &ids).request_id;
        assert_eq!(id(&[("x-request-id", "abc-1"), trace]), "abc-1");
        assert_eq!(id(&[("x-request-id", "a b"), trace]), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(id(&[]).len(), 32);
        assert_eq!(id(&[("x-request-id", &"a".repeat(129))]).len(), 32);
    }

    #[test]
    fn new_request_ids_have_version_four() {
        let id = new_request_id(&SeededIds::new(1));
        assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 4);
    }
}
