//! How one service reaches another: over the network or in the same process, through the same client layers.
//!
//! Generated clients work over a [`Transport`]: `CatalogServiceClient::new(transport)`.

mod retry;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use opentelemetry::trace::TraceContextExt;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status, TimeoutExpired};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::context::{self, RequestContext, Trace};
use crate::methods;
use crate::problem::Problem;
use crate::until::read_until;
pub use retry::RetrySafe;
use retry::Throttle;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The one type through which services call each other. Its errors are always [`tonic::Status`], boxed.
///
/// A type of its own rather than an alias of the boxed service in it: with the alias, futures that hold a client
/// cannot be spawned ("implementation of `From` is not general enough").
#[derive(Debug, Clone)]
pub struct Transport(BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>);

impl Transport {
    /// A transport through any service, for layers around another transport. It has no client layers of its own.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        Self(BoxCloneSyncService::new(service.map_err(Into::into)))
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

/// What the client layers do when the caller says nothing else.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The limit of a unary call without a deadline of its own. Streams have none.
    pub default_timeout: Duration,
    /// Taken off the remaining time when it is passed on, so that the callee gives up first.
    pub margin: Duration,
    /// Attempts in all, for calls that are safe to repeat; 1 switches retries off.
    pub attempts: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { default_timeout: Duration::from_secs(30), margin: Duration::from_millis(5), attempts: 4 }
    }
}

/// TLS towards a peer.
#[derive(Clone)]
pub struct ClientTls {
    /// The certificate authorities to trust, PEM. The machine's own store is not used.
    pub ca_pem: Vec<u8>,
    /// Certificate chain and private key, PEM, for peers that want one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name to check instead of the endpoint's host.
    pub domain: Option<String>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// An endpoint that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not `http://host:port` or `https://host:port`.
    #[error("endpoint `{0}` is not a URL such as `http://127.0.0.1:7443`")]
    Malformed(String),
    /// `https` without trust, or TLS settings for `http`.
    #[error("endpoint `{0}`: scheme `https` and TLS settings belong together")]
    TlsMismatch(String),
    /// A certificate or key that is not PEM.
    #[error("endpoint `{0}`: the TLS settings are not valid")]
    Tls(String),
}

/// Checks an endpoint of the configuration, so that a mistake shows at start-up.
pub fn check_endpoint(endpoint: &str, tls: Option<&ClientTls>) -> Result<(), EndpointError> {
    build_endpoint(endpoint, tls).map(|_| ())
}

/// A peer in another process. Connects on first use and again after a loss. An endpoint that is not valid (see
/// [`check_endpoint`]) fails each call with UNAVAILABLE.
pub fn remote(endpoint: &str, tls: Option<ClientTls>) -> Transport {
    remote_with(endpoint, tls, ClientOptions::default())
}

/// As [`remote`], with other options.
pub fn remote_with(endpoint: &str, tls: Option<ClientTls>, options: ClientOptions) -> Transport {
    let backend = match build_endpoint(endpoint, tls.as_ref()) {
        Ok(endpoint) => Backend::Remote(endpoint.connect_lazy()),
        Err(err) => Backend::Invalid(Arc::new(err)),
    };
    Transport::new(Client::new(backend, options))
}

/// A peer in this process, behind the same client layers. Extensions of the request do not get through: identity
/// that stands there could be forged. Give it the peer's whole server stack.
pub fn local<S>(server: S) -> Transport
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    local_with(server, ClientOptions::default())
}

/// As [`local`], with other options.
pub fn local_with<S>(server: S, options: ClientOptions) -> Transport
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    let server = BoxCloneSyncService::new(server.map_err(Into::into));
    Transport::new(Client::new(Backend::Local(server), options))
}

fn build_endpoint(url: &str, tls: Option<&ClientTls>) -> Result<Endpoint, EndpointError> {
    let malformed = || EndpointError::Malformed(url.to_owned());
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| malformed())?;
    if endpoint.uri().host().is_none() {
        return Err(malformed());
    }
    let secure = match endpoint.uri().scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(malformed()),
    };
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(60)))
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    match (secure, tls) {
        (false, None) => Ok(endpoint),
        (true, Some(tls)) => {
            let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
            if let Some((certificate, key)) = &tls.identity {
                config = config.identity(Identity::from_pem(certificate, key));
            }
            if let Some(domain) = &tls.domain {
                config = config.domain_name(domain.clone());
            }
            endpoint.tls_config(config).map_err(|_| EndpointError::Tls(url.to_owned()))
        }
        _ => Err(EndpointError::TlsMismatch(url.to_owned())),
    }
}

#[derive(Clone)]
enum Backend {
    Remote(Channel),
    Local(BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>),
    Invalid(Arc<EndpointError>),
}

impl Backend {
    async fn send(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let sent = match self {
            Self::Remote(channel) => channel.oneshot(request).await.map_err(Into::into),
            Self::Local(server) => server.oneshot(request).await,
            Self::Invalid(err) => return Err(Problem::unavailable(err.to_string()).into()),
        };
        sent.map_err(transport_error)
    }
}

/// An error below HTTP: the peer cannot be reached, or the connection broke. tonic calls both that and a time that has
/// passed CANCELLED, as it does a call that a peer which goes down never took.
fn transport_error(err: BoxError) -> Status {
    let first: &(dyn std::error::Error + 'static) = &*err;
    let late = std::iter::successors(Some(first), |err| err.source()).any(|err| err.is::<TimeoutExpired>());
    let status = Status::from_error(err);
    if !status.details().is_empty() {
        return status;
    }
    if late || status.code() == Code::DeadlineExceeded {
        return Problem::deadline_exceeded().into();
    }
    // Whether the call was carried out is not known; only calls that are safe are repeated.
    tracing::debug!(code = ?status.code(), error = status.message(), "call failed below gRPC");
    Problem::unavailable("the service cannot be reached").into()
}

#[derive(Clone)]
struct Client {
    backend: Backend,
    shared: Arc<Shared>,
}

struct Shared {
    options: ClientOptions,
    throttle: Throttle,
}

impl Client {
    fn new(backend: Backend, options: ClientOptions) -> Self {
        Self { backend, shared: Arc::new(Shared { options, throttle: Throttle::default() }) }
    }

    /// The client layers, outermost first: deadline and context out (once for all attempts), strip extensions, retry.
    async fn run(self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let method = methods::method(request.uri().path());
        let streams = method.is_some_and(|method| !method.unary());
        let marked = request.extensions().get::<RetrySafe>().is_some();
        let repeatable = marked || method.is_some_and(|method| method.reads_only && !method.client_streaming);
        let deadline = self.deadline(request.headers(), streams);
        write_context(request.headers_mut());
        request.extensions_mut().clear();
        let response = if repeatable && self.shared.options.attempts > 1 {
            retry::send(&self, request, deadline).await?
        } else {
            self.attempt(request, deadline).await?
        };
        Ok(match deadline {
            Some(deadline) if crate::body::code_in(response.headers()).is_none() => {
                response.map(|body| read_until(body, deadline))
            }
            _ => response,
        })
    }

    /// The earliest of the call's own timeout and what is left of the request that it serves; unary calls with
    /// neither get the default.
    fn deadline(&self, headers: &http::HeaderMap, streams: bool) -> Option<Instant> {
        let own = context::parse_timeout(headers).map(|timeout| Instant::now() + timeout);
        let outer = context::with_current(|context| context.and_then(|context| context.deadline));
        match (own, outer) {
            (Some(own), Some(outer)) => Some(own.min(outer)),
            (Some(one), None) | (None, Some(one)) => Some(one),
            (None, None) if streams => None,
            (None, None) => Some(Instant::now() + self.shared.options.default_timeout),
        }
    }

    /// Sends once, with the time that is left.
    async fn attempt(
        &self,
        mut request: Request<Body>,
        deadline: Option<Instant>,
    ) -> Result<Response<Body>, Status> {
        let Some(deadline) = deadline else {
            return self.backend.clone().send(request).await;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let passed_on = left.saturating_sub(self.shared.options.margin);
        if passed_on.is_zero() {
            return Err(Problem::deadline_exceeded().into());
        }
        if let Some(value) = context::format_timeout(passed_on) {
            request.headers_mut().insert(context::GRPC_TIMEOUT, value);
        }
        match tokio::time::timeout_at(deadline, self.backend.clone().send(request)).await {
            Ok(sent) => sent,
            Err(_) => Err(Problem::deadline_exceeded().into()),
        }
    }
}

/// Writes request id, trace position and baggage of the current request, unless the caller set its own.
fn write_context(headers: &mut http::HeaderMap) {
    let span_trace = current_span_trace();
    context::with_current(|context| {
        let mut set = |name: http::HeaderName, value: Option<http::HeaderValue>| {
            if let Some(value) = value
                && !headers.contains_key(&name)
            {
                headers.insert(name, value);
            }
        };
        let received = context.and_then(|context: &RequestContext| context.trace.as_ref());
        if let Some(trace) = span_trace.as_ref().or(received) {
            set(context::TRACEPARENT, trace.traceparent());
            set(context::TRACESTATE, trace.state.clone());
        }
        if let Some(context) = context {
            set(context::REQUEST_ID, http::HeaderValue::from_str(&context.request_id).ok());
            set(context::BAGGAGE, context.baggage.clone());
        }
    });
}

/// The present span as OpenTelemetry knows it; `None` where tracing is not exported.
fn current_span_trace() -> Option<Trace> {
    let span = tracing::Span::current();
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let present = context.span();
    let present = present.span_context();
    if !present.is_valid() {
        return None;
    }
    let state = Some(present.trace_state().header()).filter(|state| !state.is_empty());
    Some(Trace {
        trace_id: present.trace_id(),
        span_id: present.span_id(),
        flags: present.trace_flags(),
        state: state.and_then(|state| http::HeaderValue::try_from(state).ok()),
    })
}

impl Service<Request<Body>> for Client {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Each call takes a clone of the backend and waits for that to be ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = self.clone();
        Box::pin(async move { client.run(request).await.map_err(Into::into) })
    }
}
