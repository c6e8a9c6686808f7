//! The gateway's way to a service in tests of that service alone: what the gateway does when policy says yes.

use std::sync::Arc;

use pavior_auth::{Acting, Grant, INTERNAL_TOKEN, ServiceIdentity};
use pavior_core::audit::{DecisionRef, Effect};
use pavior_core::principal::GATEWAY;
use pavior_proto::pavior::governance::v1::Audience;
use pavior_rpc::{BoxError, Transport, governance};
use tonic::body::Body;
use tower::{ServiceExt, service_fn};

/// A transport that brings a decision about the method's action with each call, as the gateway does for its callers;
/// calls that are the gateway's own, and those of other services, are signed as ever.
pub fn governed(identity: &ServiceIdentity, inner: Transport, audience: &str) -> Transport {
    let (identity, audience): (_, Arc<str>) = (identity.clone(), audience.into());
    let own = identity.transport(inner.clone(), &audience);
    Transport::new(service_fn(move |mut request: http::Request<Body>| {
        let path = request.uri().path().to_owned();
        let rule = governance::rule(&path)
            .filter(|rule| identity.role() == GATEWAY && rule.audience() != Audience::Internal);
        let acting = rule.and_then(|_| request.extensions_mut().remove::<Acting>());
        if let (Some(rule), Some(acting)) = (rule, acting) {
            let decision = DecisionRef {
                decision: "decision-1".into(),
                effect: Effect::Allow,
                ..DecisionRef::default()
            };
            let token = identity.mint(&Grant {
                audience: &audience,
                method: &path,
                principal: acting.principal(),
                organization: acting.organization(),
                action: &rule.action,
                resource: "",
                decision: Some(&decision),
                facts: "",
                request_id: "",
            });
            request.headers_mut().insert(INTERNAL_TOKEN, token.unwrap());
        }
        let way = if request.headers().contains_key(INTERNAL_TOKEN) { inner.clone() } else { own.clone() };
        async move { way.oneshot(request).await.map_err(|error| -> BoxError { error }) }
    }))
}
