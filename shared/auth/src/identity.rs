//! The client side: a service that signs what it sends to another.

use std::sync::Arc;
use std::task::{Context, Poll};

use aws_lc_rs::digest;
use futures::future::BoxFuture;
use http::HeaderValue;
use pavior_core::audit::DecisionRef;
use pavior_core::clock::Clock;
use pavior_core::id_gen::IdGen;
use pavior_core::principal::{GATEWAY, INSTALLATION, Principal};
use pavior_rpc::{BoxError, Transport};
use tonic::body::Body;
use tower::Service;

use crate::error::AuthError;
use crate::internal::{Claims, Grant, INTERNAL_TOKEN, InternalSigner, MAX_LIFETIME_SECONDS};
use crate::keys::PublicKey;
use crate::peer::Peer;
use crate::permit::{Permit, SystemAuthority, current};
use crate::principal::service_principal;

/// A minted token is used again for this long; then at least half a minute of its life is left.
const REUSE_SECONDS: i64 = 25;
const CACHE_SIZE: u64 = 4096;

/// On whose behalf an outgoing request is made. Lives in the extensions of a request until the transport of the
/// sender turns it into a signed token; it never reaches the other side.
#[derive(Debug, Clone)]
pub struct Acting {
    principal: Arc<Principal>,
    organization: String,
    decision: Option<DecisionRef>,
    /// The token of the gateway whose call is being worked on; sensitive.
    proof: Option<HeaderValue>,
}

impl Acting {
    /// On whose behalf.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The organization that the request is confined to.
    pub fn organization(&self) -> &str {
        &self.organization
    }
}

impl From<&Permit> for Acting {
    fn from(permit: &Permit) -> Self {
        Self {
            principal: permit.shared_principal().clone(),
            organization: permit.organization().to_owned(),
            decision: permit.decision().cloned(),
            proof: permit.token().cloned(),
        }
    }
}

/// Who a service is towards its peers: its role and the key that it signs with. Cheap to clone.
#[derive(Clone)]
pub struct ServiceIdentity {
    inner: Arc<Inner>,
}

struct Inner {
    role: String,
    signer: InternalSigner,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
    minted: moka::sync::Cache<[u8; 32], (HeaderValue, i64)>,
}

impl std::fmt::Debug for ServiceIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceIdentity").field("role", &self.inner.role).finish_non_exhaustive()
    }
}

impl ServiceIdentity {
    /// The identity of the service `role`.
    pub fn new(role: &str, signer: InternalSigner, clock: Arc<dyn Clock>, ids: Arc<dyn IdGen>) -> Self {
        let minted = moka::sync::Cache::new(CACHE_SIZE);
        let inner = Inner { role: role.to_owned(), signer, clock, ids, minted };
        Self { inner: Arc::new(inner) }
    }

    /// The role, which is the issuer of the tokens.
    pub fn role(&self) -> &str {
        &self.inner.role
    }

    /// The key that verifies the tokens.
    pub fn public(&self) -> PublicKey {
        self.inner.signer.public()
    }

    /// The right to act as the service itself.
    pub fn authority(&self) -> SystemAuthority {
        SystemAuthority::new(&self.inner.role)
    }

    /// A request on behalf of whom `permit` is for (a caller, or the service itself: [`Permit::for_system`]).
    pub fn request<T>(&self, permit: &Permit, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.extensions_mut().insert(Acting::from(permit));
        request
    }

    /// A request on behalf of a principal whom the caller has authenticated itself, as the gateway does. From any other
    /// service it is taken only where the method's rule says that it may be made on the service's word.
    pub fn request_as<T>(
        &self,
        principal: &Arc<Principal>,
        organization: &str,
        message: T,
    ) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let acting = Acting {
            principal: principal.clone(),
            organization: organization.to_owned(),
            decision: None,
            proof: None,
        };
        request.extensions_mut().insert(acting);
        request
    }

    /// A transport that signs each call for `audience`: on behalf of the request's [`Acting`], else of the call that
    /// the current task is answering, else as the service itself without an organization. A token that is already
    /// on the request stays.
    pub fn transport(&self, inner: Transport, audience: &str) -> Transport {
        Transport::new(Signed { identity: self.clone(), audience: audience.into(), inner })
    }

    /// As [`ServiceIdentity::transport`], for generated clients inside of handlers and tasks.
    pub fn peer(&self, inner: Transport, audience: &str) -> Peer {
        Peer::new(self.transport(inner, audience))
    }

    /// Signs a token for one call.
    pub fn mint(&self, grant: &Grant<'_>) -> Result<HeaderValue, AuthError> {
        self.sign(grant, None)
    }

    /// Signs a token in which `proof`, if there is one, stands for the principal and the decision.
    fn sign(&self, grant: &Grant<'_>, proof: Option<&str>) -> Result<HeaderValue, AuthError> {
        let now = self.inner.clock.now().unix_timestamp();
        let token = self.inner.signer.sign(&Claims {
            iss: self.inner.role.clone(),
            aud: grant.audience.to_owned(),
            sub: grant.principal.name.clone(),
            iat: now,
            exp: now + MAX_LIFETIME_SECONDS,
            jti: self.inner.ids.uuid(),
            principal: proof.is_none().then(|| grant.principal.clone()),
            proof: proof.unwrap_or_default().to_owned(),
            organization: grant.organization.to_owned(),
            action: grant.action.to_owned(),
            resource: grant.resource.to_owned(),
            decision: grant.decision.filter(|_| proof.is_none()).cloned(),
            facts: grant.facts.to_owned(),
            request_id: grant.request_id.to_owned(),
            method: grant.method.to_owned(),
        })?;
        let mut value = HeaderValue::try_from(token).map_err(|error| AuthError::Mint(error.to_string()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// As [`ServiceIdentity::mint`], but gives the token of some seconds ago again when it says the same: all of
    /// `grant` is the same, its decision being one of the same effect by the same policies of the same revision. The
    /// request is not named in it. For calls that change nothing, so that a signature is not paid for each of them;
    /// the decision itself must have been made anew.
    pub fn mint_shared(&self, grant: &Grant<'_>) -> Result<HeaderValue, AuthError> {
        let decision =
            grant.decision.map(|decision| DecisionRef { decision: String::new(), ..decision.clone() });
        self.reuse(&Grant { request_id: "", ..grant.clone() }, decision.as_ref(), None)
    }

    /// A token for any call at `audience` on somebody's behalf. The gateway's word is enough; any other service shows
    /// the gateway's token of the call that it is working on.
    fn on_behalf(&self, acting: &Acting, audience: &str) -> Result<HeaderValue, AuthError> {
        let decision = acting.decision.as_ref();
        let shown = acting.proof.as_ref().filter(|_| self.inner.role != GATEWAY);
        let proof = shown.map(HeaderValue::to_str).transpose();
        let proof = proof.map_err(|error| AuthError::Mint(error.to_string()))?;
        let grant = Grant {
            audience,
            method: "",
            principal: &acting.principal,
            organization: &acting.organization,
            action: "",
            resource: "",
            decision,
            facts: "",
            request_id: "",
        };
        self.reuse(&grant, decision, proof)
    }

    /// Signs at most every [`REUSE_SECONDS`] what says the same. `alike` stands for the decision in the comparison.
    fn reuse(
        &self,
        grant: &Grant<'_>,
        alike: Option<&DecisionRef>,
        proof: Option<&str>,
    ) -> Result<HeaderValue, AuthError> {
        let mint = |error: serde_json::Error| AuthError::Mint(error.to_string());
        let Grant { audience, method, principal, organization, action, resource, facts, .. } = grant;
        let described = (audience, method, organization, principal, action, resource, facts, alike, proof);
        let described = serde_json::to_vec(&described).map_err(mint)?;
        let mut key = [0; 32];
        key.copy_from_slice(digest::digest(&digest::SHA256, &described).as_ref());
        let now = self.inner.clock.now().unix_timestamp();
        let fresh = |at: i64| (0..REUSE_SECONDS).contains(&(now - at));
        if let Some((value, at)) = self.inner.minted.get(&key)
            && fresh(at)
        {
            return Ok(value);
        }
        let value = self.sign(grant, proof)?;
        self.inner.minted.insert(key, (value.clone(), now));
        Ok(value)
    }
}

/// [`ServiceIdentity::transport`] as a function, for `map`.
pub fn identity_transport(identity: &ServiceIdentity, inner: Transport, audience: &str) -> Transport {
    identity.transport(inner, audience)
}

#[derive(Debug, Clone)]
struct Signed {
    identity: ServiceIdentity,
    audience: Arc<str>,
    inner: Transport,
}

impl Service<http::Request<Body>> for Signed {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if !request.headers().contains_key(INTERNAL_TOKEN) {
            let acting = request
                .extensions_mut()
                .remove::<Acting>()
                .or_else(|| current().as_ref().map(Acting::from))
                .unwrap_or_else(|| Acting {
                    principal: Arc::new(service_principal(self.identity.role())),
                    organization: INSTALLATION.to_owned(),
                    decision: None,
                    proof: None,
                });
            match self.identity.on_behalf(&acting, &self.audience) {
                Ok(token) => request.headers_mut().insert(INTERNAL_TOKEN, token),
                Err(error) => return Box::pin(std::future::ready(Err(error.into()))),
            };
        }
        // The inner service that was polled ready is the one that must be called.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move { inner.call(request).await })
    }
}
