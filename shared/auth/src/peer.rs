//! A transport that generated clients can use inside of `Send` futures.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use pavior_rpc::Transport;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// A [`Transport`] whose errors are plain [`Status`]es.
///
/// A generated client over a bare `Transport` compiles, but its futures are not provably `Send` in handlers ("`From`
/// is not general enough": the compiler forgets that the boxed error is `'static`). Over a `Peer` they are:
/// `CatalogServiceClient::new(identity.peer(raw, "catalog"))`.
#[derive(Debug, Clone)]
pub struct Peer(Transport);

impl Peer {
    /// Wraps a transport.
    pub fn new(transport: Transport) -> Self {
        Self(transport)
    }
}

impl From<Transport> for Peer {
    fn from(transport: Transport) -> Self {
        Self(transport)
    }
}

impl Service<http::Request<Body>> for Peer {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Status>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.0.poll_ready(cx).map_err(Status::from_error)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = self.0.call(request);
        Box::pin(async move { call.await.map_err(Status::from_error) })
    }
}
