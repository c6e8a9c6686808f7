//! The server layer that lets nobody in without a valid internal token, and nobody further than the descriptors say.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use pavior_core::audit::Effect;
use pavior_core::principal::{GATEWAY, PLATFORM_SERVICES};
use pavior_proto::pavior::governance::v1::{Access, Audience, Rule, Stage};
use pavior_rpc::RequestContext;
use pavior_rpc::problem::{ErrorReason, Problem};
use pavior_rpc::{convert, governance};
use tonic::body::Body;
use tower::{Layer, Service};

use crate::error::{AuthError, Unauthenticated};
use crate::internal::{INTERNAL_TOKEN, InternalVerifier};
use crate::permit::{Origin, Permit, Standing};

/// Who may call the methods of a service, and what they must bring: as the governance options beside each method say.
/// Nobody may call anything else.
#[derive(Debug, Clone)]
pub struct CallRules {
    /// By path.
    methods: HashMap<String, CallRule>,
}

#[derive(Debug, Clone)]
struct CallRule {
    action: String,
    /// Policy may ask for an approval: the service decides over its plan once more.
    plan_follows: bool,
    /// What each role must bring.
    callers: BTreeMap<String, Brings>,
}

/// What a caller must bring beside its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brings {
    /// Nothing: the call is the service's own, or for the caller whose call it is working on, as the gateway signed it.
    Nothing,
    /// Nothing; and the principal may be one whose call has been answered, on the service's word.
    Word,
    /// The name of the action, from a caller whose token was verified.
    Caller,
    /// A decision of policy about the method's action.
    Decision,
}

impl CallRules {
    /// The rules of every method of these services.
    ///
    /// # Errors
    /// All methods that do not say who may call them, or say it in a way that cannot be kept.
    pub fn of(services: &[&str]) -> Result<Self, AuthError> {
        let (mut methods, mut offenders) = (HashMap::new(), Vec::new());
        for name in services {
            let Some(service) = convert::pool().get_service_by_name(name) else {
                offenders.push(format!("`{name}`: there is no such service"));
                continue;
            };
            for method in service.methods() {
                let path = format!("/{name}/{}", method.name());
                match governance::rule(&path).ok_or("has no governance rule").and_then(CallRule::new) {
                    Ok(rule) => drop(methods.insert(path, rule)),
                    Err(problem) => offenders.push(format!("`{path}`: {problem}")),
                }
            }
        }
        if offenders.is_empty() { Ok(Self { methods }) } else { Err(AuthError::Uncallable(offenders)) }
    }

    /// Each method's path with each role that may call it and what it must bring, sorted.
    pub fn callers(&self) -> Vec<(&str, &str, Brings)> {
        let mut all: Vec<_> = self
            .methods
            .iter()
            .flat_map(|(path, rule)| {
                rule.callers.iter().map(move |(role, brings)| (path.as_str(), role.as_str(), *brings))
            })
            .collect();
        all.sort_unstable_by_key(|(path, role, _)| (*path, *role));
        all
    }

    fn check(&self, permit: &Permit, path: &str) -> Result<(), String> {
        let caller = permit.caller();
        let rule = self.methods.get(path);
        let Some((rule, brings)) = rule.and_then(|rule| Some((rule, rule.callers.get(caller)?))) else {
            return Err(format!("`{caller}` is not allowed to call `{path}`"));
        };
        let action = &rule.action;
        if permit.standing() == Standing::Claimed && *brings != Brings::Word {
            let name = &permit.principal().name;
            return Err(format!("`{caller}` brings no token of the gateway for `{name}`"));
        }
        // Whatever else is brought: what was decided about one action is no decision about another.
        if !permit.action().is_empty() && permit.action() != action {
            return Err(format!("a decision about `{}` does not allow `{action}`", permit.action()));
        }
        match brings {
            Brings::Nothing | Brings::Word => Ok(()),
            Brings::Caller if permit.action() == action => Ok(()),
            Brings::Decision if permit.action() == action && rule.is_decided(permit) => Ok(()),
            Brings::Caller | Brings::Decision => {
                Err(format!("`{caller}` brings no decision about `{action}`"))
            }
        }
    }
}

impl CallRule {
    fn new(rule: &Rule) -> Result<Self, &'static str> {
        let changes = match Access::try_from(rule.access) {
            Ok(Access::Read) => false,
            Ok(Access::Change) => true,
            _ => return Err("does not say whether it reads or changes"),
        };
        if rule.action.is_empty() {
            return Err("has no action");
        }
        if rule.callers.iter().any(|role| !PLATFORM_SERVICES.contains(&role.as_str())) {
            return Err("names a caller that is no service of the platform");
        }
        let own = if rule.deferred { Brings::Word } else { Brings::Nothing };
        let mut callers: BTreeMap<String, Brings> =
            rule.callers.iter().map(|role| (role.clone(), own)).collect();
        let brings = match Audience::try_from(rule.audience) {
            Ok(Audience::Internal) if callers.is_empty() => return Err("is internal and names no caller"),
            Ok(Audience::Internal) => None,
            Ok(_) if rule.deferred => return Err("is deferred and not internal"),
            Ok(_) if changes && !callers.is_empty() => {
                return Err("changes without a decision for the callers that it names");
            }
            Ok(Audience::Authenticated) => Some(Brings::Caller),
            Ok(Audience::Governed | Audience::Unspecified) => Some(Brings::Decision),
            Err(_) => return Err("has an audience that is not known"),
        };
        if let Some(brings) = brings {
            callers.entry(GATEWAY.to_owned()).or_insert(brings);
        }
        Ok(Self { action: rule.action.clone(), plan_follows: rule.stage() == Stage::Plan, callers })
    }

    fn is_decided(&self, permit: &Permit) -> bool {
        permit.decision().is_some_and(|decision| match decision.effect {
            Effect::Allow => true,
            Effect::RequireApproval => self.plan_follows,
            Effect::Deny => false,
        })
    }
}

/// A layer that verifies the internal token of each call, checks it against the rules of the method, and puts the
/// [`Permit`] into the request's extensions. The token itself does not go further.
pub fn authn_layer(verifier: InternalVerifier, audience: &str, rules: CallRules) -> AuthnLayer {
    AuthnLayer { shared: Arc::new(Shared { verifier, audience: audience.to_owned(), rules }) }
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
    rules: CallRules,
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
    fn verify(&self, request: &http::Request<Body>) -> Result<Permit, Unauthenticated> {
        let (headers, path) = (request.headers(), request.uri().path());
        let context = request.extensions().get::<RequestContext>();
        let trace_id = context.and_then(RequestContext::trace_id);
        let origin = Origin { trace_id, received: Some(Instant::now()) };
        let mut tokens = headers.get_all(INTERNAL_TOKEN).iter();
        let token = tokens.next().ok_or(Unauthenticated::new("missing"))?;
        // Two tokens leave open which of them is meant.
        if tokens.next().is_some() {
            return Err(Unauthenticated::new("several"));
        }
        let token = token.to_str().map_err(|_| Unauthenticated::new("malformed"))?;
        let request_id = headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        self.verifier.verify_for(token, &self.audience, path, request_id, origin)
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
        let permit = match self.shared.verify(&request) {
            Ok(permit) => permit,
            Err(refused) => {
                tracing::warn!(reason = refused.reason(), path, "internal token refused");
                // The token is no caller's: its classes would say nothing that a caller could mend.
                let status: tonic::Status = Problem::unauthenticated().into();
                return Box::pin(std::future::ready(Ok(status.into_http())));
            }
        };
        if let Err(refused) = self.shared.rules.check(&permit, path) {
            tracing::warn!(caller = permit.caller(), path, refused, "call of a service refused");
            let status: tonic::Status =
                Problem::new(tonic::Code::PermissionDenied, ErrorReason::CallerNotAllowed, refused)
                    .with("caller", permit.caller())
                    .with("method", path)
                    .with("principal", permit.principal().name.as_str())
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
