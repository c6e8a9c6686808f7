//! The proof that a request was let in, which store methods on tenant data take as their first argument.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use pavior_core::audit::DecisionRef;
use pavior_core::principal::Principal;

use crate::error::Unauthenticated;
use crate::principal::service_principal;

tokio::task_local! {
    static CURRENT: Permit;
}

/// A verified call: who asks, in which organization, what was decided. Only a verified internal token or a
/// [`SystemAuthority`] makes one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Permit {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) principal: Arc<Principal>,
    pub(crate) organization: String,
    pub(crate) action: String,
    pub(crate) resource: String,
    pub(crate) decision: Option<DecisionRef>,
    pub(crate) facts: String,
    pub(crate) caller: String,
    pub(crate) standing: Standing,
    /// The token of the gateway that this permit comes from; sensitive, so that it is not printed.
    pub(crate) token: Option<HeaderValue>,
    pub(crate) request_id: String,
    pub(crate) origin: Origin,
}

/// What it rests on that the principal of a call is who the caller says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The gateway verified the credential.
    Gateway,
    /// A service acts as itself.
    Itself,
    /// A service works on a call that the gateway signed.
    Proven,
    /// A service says so.
    Claimed,
}

/// Where a call came in, for its record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    /// W3C trace id, 32 hex digits.
    pub(crate) trace_id: Option<String>,
    /// Nothing for background work.
    pub(crate) received: Option<Instant>,
}

impl Permit {
    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// A permit for background work of a service itself, in one organization (`pavior` for the installation itself).
    pub fn for_system(authority: &SystemAuthority, organization: &str) -> Self {
        Self::new(Inner {
            principal: Arc::new(service_principal(&authority.role)),
            organization: organization.to_owned(),
            action: String::new(),
            resource: String::new(),
            decision: None,
            facts: String::new(),
            caller: authority.role.clone(),
            standing: Standing::Itself,
            token: None,
            request_id: String::new(),
            origin: Origin::default(),
        })
    }

    /// On whose behalf the call is made.
    pub fn principal(&self) -> &Principal {
        &self.inner.principal
    }

    pub(crate) fn shared_principal(&self) -> &Arc<Principal> {
        &self.inner.principal
    }

    /// The id of the organization that the call is confined to, for example `acme`; `pavior` for the installation itself.
    pub fn organization(&self) -> &str {
        &self.inner.organization
    }

    /// The action that was decided on; empty when the call comes from a service rather than through the gateway.
    pub fn action(&self) -> &str {
        &self.inner.action
    }

    /// The resource that was decided on; empty when the call comes from a service.
    pub fn resource(&self) -> &str {
        &self.inner.resource
    }

    /// The decision that let the call in, if one was asked for.
    pub fn decision(&self) -> Option<&DecisionRef> {
        self.inner.decision.as_ref()
    }

    /// The fingerprint of the facts that were decided on; empty where there were none.
    pub fn facts(&self) -> &str {
        &self.inner.facts
    }

    /// The role of the service that made the call, for example `gateway`.
    pub fn caller(&self) -> &str {
        &self.inner.caller
    }

    pub(crate) fn standing(&self) -> Standing {
        self.inner.standing
    }

    pub(crate) fn token(&self) -> Option<&HeaderValue> {
        self.inner.token.as_ref()
    }

    /// The id of the request that this call belongs to; empty for background work.
    pub fn request_id(&self) -> &str {
        &self.inner.request_id
    }

    /// The W3C trace id of the call, 32 hex digits; nothing where there is no trace.
    pub fn trace_id(&self) -> Option<&str> {
        self.inner.origin.trace_id.as_deref()
    }

    /// How long ago the call came in; nothing for background work.
    pub fn elapsed(&self) -> Option<Duration> {
        self.inner.origin.received.map(|at| at.elapsed())
    }

    pub(crate) async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }
}

/// The right of a service to act as itself in background work. Comes from [`crate::ServiceIdentity::authority`].
#[derive(Debug, Clone)]
pub struct SystemAuthority {
    role: String,
}

impl SystemAuthority {
    pub(crate) fn new(role: &str) -> Self {
        Self { role: role.to_owned() }
    }

    /// The role of the service.
    pub fn role(&self) -> &str {
        &self.role
    }
}

/// The permit of a request that came through the authn layer.
///
/// # Errors
/// `UNAUTHENTICATED` where the layer is missing: a server wired wrongly fails closed.
// A `Status` is what handlers return; boxing it here would only move the cost to each of them.
#[allow(clippy::result_large_err)]
pub fn permit<T>(request: &tonic::Request<T>) -> Result<Permit, tonic::Status> {
    request.extensions().get::<Permit>().cloned().ok_or_else(|| Unauthenticated::new("no_layer").into())
}

/// The permit of the call that the current task is answering, if it is answering one. Not seen by spawned tasks and
/// by response streams: hand the permit on where one of these is used.
pub fn current() -> Option<Permit> {
    CURRENT.try_with(Permit::clone).ok()
}
