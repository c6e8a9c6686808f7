//! What every test of one service needs around it: signed callers, the check of their tokens, and the server stack.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry::metrics::{Meter, MeterProvider as _, noop::NoopMeterProvider};
use pavior_auth::{CallRules, InternalSigner, InternalVerifier, ServiceIdentity, authn_layer};
use pavior_core::principal::{GATEWAY, INSTALLATION, Principal, PrincipalKind};
use pavior_rpc::server::{AuthnLayer, Stack};
use pavior_rpc::{StackOptions, Transport, stack};
use tonic::service::Routes;

use crate::{Clock, IdGen, ManualClock, SystemIds, governed};

/// The key of the page tokens in tests.
pub const PAGE_TOKEN_KEY: [u8; 32] = [7; 32];

/// The surroundings of a service under test. Every caller has a key of its own, which the service's token check knows.
#[derive(Debug, Clone)]
pub struct ServiceHarness<C = ManualClock> {
    role: &'static str,
    /// The clock of the service and of those who sign.
    pub clock: Arc<C>,
    /// Where ids come from.
    pub ids: Arc<dyn IdGen>,
    identities: BTreeMap<&'static str, ServiceIdentity>,
    verifier: InternalVerifier,
}

impl ServiceHarness {
    /// For the service `role`, which the gateway and these peers call, with a clock that the test moves.
    pub fn new(role: &'static str, peers: &[&'static str]) -> Self {
        Self::with(role, peers, Arc::new(ManualClock::default()), Arc::new(SystemIds))
    }
}

impl<C: Clock + 'static> ServiceHarness<C> {
    /// With a clock and ids of the test's own.
    pub fn with(role: &'static str, peers: &[&'static str], clock: Arc<C>, ids: Arc<dyn IdGen>) -> Self {
        let callers = [GATEWAY, role].into_iter().chain(peers.iter().copied());
        let identities: BTreeMap<_, _> = callers
            .map(|caller| {
                let signer = InternalSigner::generate().unwrap();
                (caller, ServiceIdentity::new(caller, signer, clock.clone(), ids.clone()))
            })
            .collect();
        let keys = identities.iter().map(|(caller, identity)| ((*caller).to_owned(), identity.public()));
        let verifier = InternalVerifier::new(keys, clock.clone()).unwrap();
        Self { role, clock, ids, identities, verifier }
    }

    /// A caller's identity, or the service's own.
    pub fn identity(&self, caller: &str) -> &ServiceIdentity {
        self.identities.get(caller).unwrap_or_else(|| panic!("`{caller}` has no key in this test"))
    }

    /// The routes behind the server stack, with the token check of the service `role`.
    pub fn stack_of(&self, role: &'static str, routes: Routes, options: StackOptions) -> Stack {
        let rules = CallRules::of(&pavior_rpc::governance::services(role)).unwrap();
        let authn = AuthnLayer::new(authn_layer(self.verifier.clone(), role, rules));
        stack(routes, StackOptions { name: role, authn: Some(authn), ..options })
    }

    /// The same for the service under test.
    pub fn stack(&self, routes: Routes, options: StackOptions) -> Stack {
        self.stack_of(self.role, routes, options)
    }

    /// A way to the service on which the gateway's calls carry a decision; see [`governed`].
    pub fn governed(&self, inner: Transport) -> Transport {
        governed(self.identity(GATEWAY), inner, self.role)
    }

    /// A way to the service on which a peer signs what it sends.
    pub fn signed_by(&self, caller: &str, inner: Transport) -> Transport {
        self.identity(caller).transport(inner, self.role)
    }

    /// A call by the gateway on behalf of somebody, about the organization of theirs.
    pub fn request<T>(&self, who: &Principal, message: T) -> tonic::Request<T> {
        self.identity(GATEWAY).request_as(&Arc::new(who.clone()), &who.organization, message)
    }
}

/// A meter that measures nothing.
pub fn meter() -> Meter {
    NoopMeterProvider::new().meter("test")
}

/// A user of an organization.
pub fn user(organization: &str, id: &str) -> Principal {
    Principal {
        kind: PrincipalKind::User,
        name: format!("organizations/{organization}/users/{id}"),
        organization: organization.to_owned(),
        subject: id.to_owned(),
        groups: Vec::new(),
        email: None,
        display_name: None,
        installation_operator: false,
        on_behalf_of: None,
    }
}

/// A service of the platform as itself.
pub fn service(role: &str) -> Principal {
    Principal {
        kind: PrincipalKind::Service,
        name: pavior_core::principal::service_name(role),
        ..user(INSTALLATION, role)
    }
}
