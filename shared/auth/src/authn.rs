//! The server layer that lets nobody in without a valid internal token.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use pavior_rpc::problem::{ErrorReason, Problem};
use tonic::body::Body;
use tower::{Layer, Service};

use crate::error::Unauthenticated;
use crate::internal::{INTERNAL_TOKEN, InternalVerifier};
use crate::permit::Permit;

/// Which methods each role may call at a service. Nobody may call anything that is not named.
#[derive(Debug, Clone, Default)]
pub struct AllowList {
    roles: HashMap<String, Vec<Pattern>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Any,
    /// `package.` or `package.Service/`.
    Prefix(String),
    Method(String),
}

impl AllowList {
    /// Allows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows `role` the methods: `package.Service/Method`, `package.Service/*`, `package.*` or `*`.
    #[must_use]
    pub fn allow<'a>(mut self, role: &str, methods: impl IntoIterator<Item = &'a str>) -> Self {
        let patterns = methods.into_iter().map(|method| match method.strip_suffix('*') {
            Some("") => Pattern::Any,
            Some(prefix) => Pattern::Prefix(prefix.to_owned()),
            None => Pattern::Method(method.to_owned()),
        });
        self.roles.entry(role.to_owned()).or_default().extend(patterns);
        self
    }

    /// True when `role` may call `path` (`/package.Service/Method`).
    pub fn permits(&self, role: &str, path: &str) -> bool {
        let method = path.strip_prefix('/').unwrap_or(path);
        self.roles.get(role).is_some_and(|patterns| {
            patterns.iter().any(|pattern| match pattern {
                Pattern::Any => true,
                Pattern::Prefix(prefix) => method.starts_with(prefix.as_str()),
                Pattern::Method(one) => one == method,
            })
        })
    }
}

/// A layer that verifies the internal token of each call, checks it against the allow-list, and puts the [`Permit`]
/// into the request's extensions. The token itself does not go further.
pub fn authn_layer(verifier: InternalVerifier, audience: &str, allow: AllowList) -> AuthnLayer {
    AuthnLayer { shared: Arc::new(Shared { verifier, audience: audience.to_owned(), allow }) }
}

/// See [`authn_layer`].
#[derive(Debug, Clone)]
pub struct AuthnLayer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    verifier: InternalVerifier,
    audience: String,
    allow: AllowList,
}

impl<S> Layer<S> for AuthnLayer {
    type Service = Authn<S>;

    fn layer(&self, inner: S) -> Authn<S> {
        Authn { shared: self.shared.clone(), inner }
    }
}

/// The service that [`AuthnLayer`] makes.
#[derive(Debug, Clone)]
pub struct Authn<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl Shared {
    fn verify(&self, headers: &http::HeaderMap, path: &str) -> Result<Permit, Unauthenticated> {
        let mut tokens = headers.get_all(INTERNAL_TOKEN).iter();
        let token = tokens.next().ok_or(Unauthenticated::new("missing"))?;
        // Two tokens leave open which of them is meant.
        if tokens.next().is_some() {
            return Err(Unauthenticated::new("several"));
        }
        let token = token.to_str().map_err(|_| Unauthenticated::new("malformed"))?;
        let request_id = headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        self.verifier.verify_for(token, &self.audience, path, request_id)
    }
}

impl<S> Service<http::Request<Body>> for Authn<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let permit = match self.shared.verify(request.headers(), path) {
            Ok(permit) => permit,
            Err(refused) => {
                tracing::warn!(reason = refused.reason(), path, "internal token refused");
                let status: tonic::Status = refused.into();
                return Box::pin(std::future::ready(Ok(status.into_http())));
            }
        };
        if !self.shared.allow.permits(permit.caller(), path) {
            tracing::warn!(caller = permit.caller(), path, "caller is not allowed this method");
            let status: tonic::Status = Problem::new(
                tonic::Code::PermissionDenied,
                ErrorReason::CallerNotAllowed,
                format!("`{}` is not allowed to call `{path}`", permit.caller()),
            )
            .with("caller", permit.caller())
            .with("method", path)
            .into();
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        request.headers_mut().remove(INTERNAL_TOKEN);
        request.extensions_mut().insert(permit.clone());
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(permit.scope(async move { inner.call(request).await }))
    }
}
