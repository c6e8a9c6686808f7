//! The one service of the gateway: every public method goes through here, and none has code of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use opentelemetry::KeyValue;
use pavior_auth::{TokenVerifier, Unauthenticated};
use pavior_core::clock::Clock;
use pavior_core::id_gen::IdGen;
use pavior_proto::pavior::governance::v1::Audit;
use pavior_rpc::problem::Problem;
use pavior_rpc::values;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;

use crate::admission::{Admission, Caller};
use crate::audit_queue::AuditQueue;
use crate::forward::Forwarder;
use crate::message;
use crate::metrics::Metrics;
use crate::routes::{Method, RouteTable};
use crate::web::Rejected;

/// How long a caller may take to send its message. Each that takes longer holds a place of the concurrency limit.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The gateway: authenticates, admits, forwards and records.
pub(crate) struct Gateway {
    pub(crate) routes: RouteTable,
    pub(crate) tokens: TokenVerifier,
    pub(crate) admission: Admission,
    pub(crate) forwarder: Forwarder,
    pub(crate) audit_queue: Arc<AuditQueue>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdGen>,
    pub(crate) max_message_bytes: usize,
}

impl Gateway {
    /// Answers a call from outside.
    async fn serve(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let method = self.route(&request)?;
        let caller = match self.authenticate(request.headers()).await {
            Ok(caller) => caller,
            Err(refused) => {
                self.metrics.unauthenticated.add(1, &[KeyValue::new("reason", refused.reason())]);
                self.audit_queue.refused(refused.reason());
                tracing::debug!(reason = refused.reason(), method = method.path, "caller not authenticated");
                return Err(refused.into());
            }
        };
        self.serve_for(&caller, &method, request).await
    }

    /// Answers a call of somebody who is authenticated.
    pub(crate) async fn serve_for(
        &self,
        caller: &Caller,
        method: &Arc<Method>,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let begin = Instant::now();
        let (parts, body) = request.into_parts();
        // Streams have no deadline; their one request message has.
        let message = message::read(&parts.headers, body, self.max_message_bytes);
        let message = tokio::time::timeout(READ_TIMEOUT, message).await;
        let message = message.map_err(|_| Status::from(Problem::deadline_exceeded()))??;
        values::check(&method.input, &message)?;
        let admitted = match self.admission.admit(caller, method, &message).await {
            Ok(admitted) => admitted,
            Err(refused) => {
                self.metrics.decided(method, refused.status.code());
                if let Some(denial) = refused.denial {
                    self.record_denial(caller, method, denial, &refused.status, begin);
                }
                return Err(refused.status);
            }
        };
        self.metrics.decided(method, Code::Ok);
        let response = self.forwarder.forward(caller, method, &admitted, &parts.headers, &message).await;
        if method.audit == Audit::Access {
            self.record_access(caller, method, &admitted, &response, begin)?;
        }
        response
    }

    /// The method of a request, if it is public and the request is gRPC.
    pub(crate) fn route(&self, request: &Request<Body>) -> Result<Arc<Method>, Status> {
        let path = request.uri().path();
        if let Some(method) = self.routes.method(path) {
            return Ok(method.clone());
        }
        let shown: String = path.chars().take(200).collect();
        Err(Problem::unimplemented(&format!("method `{shown}`")).into())
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Unauthenticated> {
        let token = pavior_auth::bearer(headers)?;
        let known = self.tokens.verify(token).await?;
        Ok(Caller { principal: known.principal.clone(), expires_at: Some(known.expires_at) })
    }
}

/// The gateway as a tower service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct GatewayService {
    pub(crate) gateway: Arc<Gateway>,
}

impl std::fmt::Debug for GatewayService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayService")
            .field("services", &self.gateway.routes.services())
            .finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for GatewayService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<pavior_rpc::BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let gateway = self.gateway.clone();
        let request = request.map(Body::new);
        Box::pin(async move {
            if let Some(Rejected(problem)) = request.extensions().get::<Rejected>() {
                return Ok(Status::from(problem.clone()).into_http());
            }
            Ok(gateway.serve(request).await.unwrap_or_else(Status::into_http))
        })
    }
}
