//! Passing an admitted call on: its bytes, with a signed token in place of the caller's credential.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version, header};
use http_body_util::Full;
use pavior_auth::{Grant, INTERNAL_TOKEN, ServiceIdentity, Unauthenticated};
use pavior_core::clock::Clock;
use pavior_rpc::problem::Problem;
use pavior_rpc::{Transport, context, until};
use tonic::Status;
use tonic::body::Body;
use tower::ServiceExt;

use crate::admission::{Admitted, Caller};
use crate::message;
use crate::routes::Method;

/// The id of the decision that let a call in, in the answer's metadata.
const DECISION: HeaderName = HeaderName::from_static("x-pavior-policy-decision");

/// Headers that end here: credentials, what belongs to this connection, and what the client layers write anew.
const NOT_FORWARDED: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "content-type",
    "forwarded",
    "grpc-encoding",
    "grpc-timeout",
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
];

/// Sends calls to the services that answer them.
pub(crate) struct Forwarder {
    pub(crate) identity: ServiceIdentity,
    /// By role, unsigned: each forwarded call gets a token of its own.
    pub(crate) upstreams: HashMap<String, Transport>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) max_stream: Duration,
}

impl Forwarder {
    /// Sends an admitted call to its service and gives back the answer unchanged.
    pub(crate) async fn forward(
        &self,
        caller: &Caller,
        method: &Method,
        admitted: &Admitted,
        headers: &HeaderMap,
        message: &Bytes,
    ) -> Result<Response<Body>, Status> {
        let Some(upstream) = self.upstreams.get(&method.role).cloned() else {
            return Err(Problem::internal(format!("no upstream for role `{}`", method.role)).into());
        };
        let request = self.request(caller, method, admitted, headers, message)?;
        let mut response = upstream.oneshot(request).await.map_err(Status::from_error)?;
        let refused = response.headers().get("grpc-status").is_some_and(|code| code == "16");
        if refused {
            // The caller is authenticated. It is this gateway's token that the service did not take.
            tracing::error!(role = method.role, "the service refused the token of the gateway");
            return Err(Problem::unavailable("the service does not answer").into());
        }
        if let Some(decision) = &admitted.decision
            && let Ok(id) = HeaderValue::from_str(&decision.decision)
        {
            response.headers_mut().insert(DECISION, id);
        }
        if method.streaming && !response.headers().contains_key("grpc-status") {
            let (lifetime, ending) = self.lifetime(caller);
            let end = tokio::time::sleep(lifetime).map(|()| ending.into());
            response = response.map(|body| until(body, end));
        }
        Ok(response)
    }

    fn request(
        &self,
        caller: &Caller,
        method: &Method,
        admitted: &Admitted,
        headers: &HeaderMap,
        message: &Bytes,
    ) -> Result<Request<Body>, Status> {
        let organization = match &admitted.resource {
            Some(resource) => resource.organization.as_str(),
            None => caller.principal.organization.as_str(),
        };
        let request_id = context::request_id();
        let grant = Grant {
            audience: &method.role,
            method: &method.path,
            principal: &caller.principal,
            organization,
            action: &method.action,
            resource: admitted.resource.as_ref().map_or("", |resource| &resource.name),
            decision: admitted.decision.as_ref(),
            facts: &admitted.facts,
            request_id: &request_id,
        };
        let token = if method.reads { self.identity.mint_shared(&grant) } else { self.identity.mint(&grant) };
        let token = token.map_err(Problem::internal)?;
        let body = Body::new(Full::new(message::write(message)));
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = method.path.parse().map_err(Problem::internal)?;
        let forwarded = request.headers_mut();
        for (name, value) in headers {
            let key = name.as_str();
            let claimed = key.starts_with("x-pavior-") || key.starts_with("x-forwarded-");
            if !claimed && !NOT_FORWARDED.contains(&key) {
                forwarded.append(name.clone(), value.clone());
            }
        }
        forwarded.insert(header::TE, HeaderValue::from_static("trailers"));
        forwarded.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        forwarded.insert(INTERNAL_TOKEN, token);
        Ok(request)
    }

    /// How long a stream may go on, and why it ends then: with its caller's token, or because it is too old. Its client
    /// resumes it.
    fn lifetime(&self, caller: &Caller) -> (Duration, Problem) {
        let left = caller.expires_at.map(|at| at - self.clock.now().unix_timestamp());
        match left.map(|left| Duration::from_secs(u64::try_from(left).unwrap_or(0))) {
            Some(left) if left < self.max_stream => (left, Unauthenticated::EXPIRED.into()),
            _ => (self.max_stream, Problem::unavailable("the stream is too old, resume it")),
        }
    }
}
