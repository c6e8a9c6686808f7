//! The server stack: every cross-cutting behaviour as a layer of our own on the routes, so that it is the same over
//! the network and in the same process (tonic's own server options are skipped in-process).

mod drain;
mod layers;
mod rescue;
mod serve;
mod tls;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use http::{Request, Response};
use opentelemetry::metrics::Meter;
use pavior_core::id_gen::{IdGen, SystemIds};
use tonic::body::Body;
use tonic::service::Routes;
use tower::util::BoxCloneSyncServiceLayer;
use tower::{Layer, Service, ServiceExt};

use crate::transport::BoxError;
pub use drain::Drain;
pub use rescue::fix_status;
pub use serve::{Peer, ServeOptions, serve, serve_with};
pub use tls::{ServerTls, TlsError};

/// The layers of [`stack`], outermost first. A test pins it.
pub const ORDER: [&str; 11] = [
    "request_id",
    "trace",
    "metrics",
    "access_log",
    "rescue",
    "catch_panic",
    "load_shed",
    "deadline",
    "drain",
    "authn",
    "values",
];

type StackFuture = BoxFuture<'static, Response<Body>>;
type StackFn = dyn Fn(Request<Body>) -> StackFuture + Send + Sync;

/// Routes with layers around them: a service that never fails, is always ready, and is cheap to clone.
#[derive(Clone)]
pub struct Stack(Arc<StackFn>);

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stack")
    }
}

impl Stack {
    /// A stack from a function.
    pub fn from_fn(f: impl Fn(Request<Body>) -> StackFuture + Send + Sync + 'static) -> Self {
        Self(Arc::new(f))
    }

    /// A stack from a service, which is cloned for each call.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        Self::from_fn(move |request| {
            service
                .clone()
                .oneshot(request)
                .map(|answer| answer.unwrap_or_else(|never| match never {}))
                .boxed()
        })
    }

    /// Answers one request.
    pub fn handle(&self, request: Request<Body>) -> StackFuture {
        (self.0)(request)
    }

    /// Sends requests for health and reflection (`/grpc.…`) to `infrastructure`, beside this stack and not under it.
    #[must_use]
    pub fn beside(self, infrastructure: Routes, drain: Drain) -> Self {
        // Their errors carry details too, and their streams end like all others.
        let infrastructure = layers::rescue(drain::layer(Self::new(infrastructure), drain));
        Self::from_fn(move |request| match request.uri().path().starts_with("/grpc.") {
            true => infrastructure.handle(request),
            false => self.handle(request),
        })
    }

    /// Takes gRPC-Web too. Serve it with [`ServeOptions::http1`] on.
    #[must_use]
    pub fn grpc_web(self) -> Self {
        Self::new(tonic_web::GrpcWebLayer::new().layer(self))
    }

    /// Lets browsers of these origins call.
    #[must_use]
    pub fn cors(self, origins: &[String]) -> Self {
        layers::cors(self, origins)
    }
}

impl<B> Service<Request<B>> for Stack
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = futures::future::Map<StackFuture, fn(Response<Body>) -> Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.handle(request.map(Body::new)).map(Ok as fn(_) -> _)
    }
}

/// A tower layer to put into the stack: `AuthnLayer::new(your_layer)`.
pub type BoxLayer = BoxCloneSyncServiceLayer<Stack, Request<Body>, Response<Body>, Infallible>;

/// The layer that finds out who calls.
pub type AuthnLayer = BoxLayer;

/// What the stack needs to know.
#[derive(Clone)]
pub struct StackOptions {
    /// The name of the server in logs and metrics.
    pub name: &'static str,
    /// Calls that may be worked on at once; more get RESOURCE_EXHAUSTED.
    pub max_concurrency: usize,
    /// The limit of a unary call that brings none.
    pub default_deadline: Duration,
    /// The longest limit of a unary call; streams may last longer.
    pub max_deadline: Duration,
    /// The largest request message. Generated servers have a limit of 4 MiB besides.
    pub max_message_bytes: usize,
    /// When streams and long polls end because the process does.
    pub drain: Drain,
    /// Who calls.
    pub authn: Option<AuthnLayer>,
    /// False for a server that reads the message itself before it knows who calls; it has to use [`crate::values`].
    pub reads_message: bool,
    /// Further layers between `authn` and the routes, outermost first; the gateway has some.
    pub inner: Vec<(&'static str, BoxLayer)>,
    /// Where metrics go.
    pub meter: Option<Meter>,
    /// Where request ids come from.
    pub ids: Arc<dyn IdGen>,
}

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            name: "pavior",
            max_concurrency: 1024,
            default_deadline: Duration::from_secs(30),
            max_deadline: Duration::from_secs(120),
            max_message_bytes: 4 * 1024 * 1024,
            drain: Drain::default(),
            authn: None,
            reads_message: true,
            inner: Vec::new(),
            meter: None,
            ids: Arc::new(SystemIds),
        }
    }
}

impl fmt::Debug for StackOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackOptions").field("name", &self.name).finish_non_exhaustive()
    }
}

type Wrap = Box<dyn FnOnce(Stack) -> Stack>;

/// The one list of layers, outermost first, each with the reason for its place.
fn layers(options: &StackOptions) -> Vec<(&'static str, Wrap)> {
    let options = options.clone();
    let StackOptions { name, max_concurrency, default_deadline, max_deadline, max_message_bytes, .. } =
        options;
    let StackOptions { drain, authn, inner, meter, ids, reads_message, .. } = options;
    let mut list: Vec<(&'static str, Wrap)> = vec![
        // First, so that everything below can name the request, and every answer carries the id.
        ("request_id", Box::new(move |next| layers::request_id(next, ids))),
        // Next, so that all that is logged and measured below belongs to the caller's trace.
        ("trace", Box::new(layers::trace)),
        // Outside of rescue, so that what is counted and logged is what the caller gets.
        ("metrics", Box::new(move |next| layers::metrics(next, name, meter.as_ref()))),
        ("access_log", Box::new(move |next| layers::access_log(next, name))),
        // Around everything that can fail, so that no error leaves without its details, or with internals.
        ("rescue", Box::new(layers::rescue)),
        // Inside of rescue, which hides what the panic says; outside of all that can panic.
        ("catch_panic", Box::new(layers::catch_panic)),
        // Before any work is done for the call, and before a timer is set.
        ("load_shed", Box::new(move |next| layers::load_shed(next, max_concurrency, max_message_bytes))),
        // Around authentication too: looking up keys takes time.
        ("deadline", Box::new(move |next| layers::deadline(next, default_deadline, max_deadline))),
        // Inside of all that tells how a call ended; outside of what may wait for ever.
        ("drain", Box::new(move |next| drain::layer(next, drain))),
        // What is below it knows who calls.
        ("authn", Box::new(move |next| wrap(authn, next))),
        // Last of the common ones: the message is read for those who are let in, and before anything decodes it.
        ("values", Box::new(move |next| layers::values(next, reads_message))),
    ];
    for (name, layer) in inner {
        list.push((name, Box::new(move |next| wrap(Some(layer), next))));
    }
    list
}

fn wrap(layer: Option<BoxLayer>, next: Stack) -> Stack {
    match layer {
        Some(layer) => Stack::new(layer.layer(next)),
        None => next,
    }
}

/// The names of the layers that `options` lead to, outermost first.
pub fn order(options: &StackOptions) -> Vec<&'static str> {
    layers(options).into_iter().map(|(name, _)| name).collect()
}

/// Puts the layers around the routes.
pub fn stack(routes: Routes, options: StackOptions) -> Stack {
    let routes = Stack::new(routes.prepare());
    layers(&options).into_iter().rev().fold(routes, |next, (_, wrap)| wrap(next))
}
