//! The token between services, and the layer that demands it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use pavior_auth::{
    AuthError, Brings, CallRules, Grant, INTERNAL_TOKEN, InternalSigner, InternalVerifier, Permit,
    ServiceIdentity, SigningKey, authn_layer, current,
};
use pavior_core::audit::{DecisionRef, Effect};
use pavior_core::clock::ManualClock;
use pavior_core::principal::{Principal, PrincipalKind};
use pavior_rpc::problem::{ErrorReason, from_status};
use pavior_rpc::{BoxError, Transport, governance, methods};
use serde_json::json;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::standing::sent;
use crate::{b64, clock, ids, payload};

pub(crate) const METHOD: &str = "/pavior.catalog.v1.CatalogService/GetEntity";

pub(crate) fn alice() -> Principal {
    Principal {
        kind: PrincipalKind::User,
        name: "organizations/acme/users/alice".to_owned(),
        organization: "acme".to_owned(),
        subject: "alice".to_owned(),
        groups: vec!["payments".to_owned()],
        email: None,
        display_name: None,
        installation_operator: false,
        on_behalf_of: None,
    }
}

/// The gateway reads it without a decision, for what it tells callers about themselves.
const OWN_READ: &str = "/pavior.identity.v1.IdentityService/ListMemberships";

pub(crate) struct World {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) identity: ServiceIdentity,
    pub(crate) provisioning: ServiceIdentity,
    /// What provisioning signs with.
    pub(crate) key: SigningKey,
    pub(crate) verifier: InternalVerifier,
}

pub(crate) fn world() -> World {
    let clock = clock();
    let key = SigningKey::generate().unwrap();
    let again = SigningKey::from_pem(&key.to_pem().unwrap()).unwrap();
    let signers =
        [("gateway", InternalSigner::generate().unwrap()), ("provisioning", InternalSigner::from_key(again))];
    let [identity, provisioning] =
        signers.map(|(role, signer)| ServiceIdentity::new(role, signer, clock.clone(), ids()));
    let keys = [&identity, &provisioning].map(|one| (one.role().to_owned(), one.public()));
    let verifier = InternalVerifier::new(keys, clock.clone()).unwrap();
    World { clock, identity, provisioning, key, verifier }
}

pub(crate) fn grant<'a>(principal: &'a Principal, decision: Option<&'a DecisionRef>) -> Grant<'a> {
    Grant {
        audience: "catalog",
        method: METHOD,
        principal,
        organization: "acme",
        action: "catalog.entities.get",
        resource: "organizations/acme/kinds/component/entities/a",
        decision,
        facts: "",
        request_id: "r-1",
    }
}

impl World {
    fn token(&self) -> String {
        self.identity.mint(&grant(&alice(), None)).unwrap().to_str().unwrap().to_owned()
    }

    pub(crate) fn reason(&self, token: &str, audience: &str, method: &str) -> &'static str {
        self.verifier.verify(token, audience, method).err().map_or("accepted", |refused| refused.reason())
    }
}

#[test]
fn a_permit_says_what_was_decided() {
    let world = world();
    let decision = DecisionRef { decision: "d-1".to_owned(), effect: Effect::Allow, ..Default::default() };
    let token = world.identity.mint(&grant(&alice(), Some(&decision))).unwrap();
    let permit = world.verifier.verify(token.to_str().unwrap(), "catalog", METHOD).unwrap();
    assert_eq!(permit.principal(), &alice());
    assert_eq!((permit.organization(), permit.caller(), permit.request_id()), ("acme", "gateway", "r-1"));
    assert_eq!(permit.action(), "catalog.entities.get");
    assert_eq!(permit.resource(), "organizations/acme/kinds/component/entities/a");
    assert_eq!(permit.decision(), Some(&decision));
    assert!(!format!("{token:?}").contains("ey"), "the token is not printed");
}

#[test]
fn internal_tokens_are_bound_to_audience_method_issuer_and_time() {
    let world = world();
    let token = world.token();
    assert_eq!(world.reason(&token, "catalog", METHOD), "accepted");
    assert_eq!(world.reason(&token, "policy", METHOD), "audience");
    assert_eq!(world.reason(&token, "catalog", "/pavior.catalog.v1.CatalogService/DeleteEntity"), "method");
    world.clock.advance(Duration::from_secs(64));
    assert_eq!(world.reason(&token, "catalog", METHOD), "accepted");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.reason(&token, "catalog", METHOD), "expired");
}

#[test]
fn forged_internal_tokens_are_refused() {
    let world = world();
    let token = world.token();
    // Another key under the right role, and under a role that nobody has.
    for role in ["gateway", "root"] {
        let forger =
            ServiceIdentity::new(role, InternalSigner::generate().unwrap(), world.clock.clone(), ids());
        let forged = forger.mint(&grant(&alice(), None)).unwrap();
        assert_eq!(world.reason(forged.to_str().unwrap(), "catalog", METHOD), "unknown_key");
    }
    // The real token with another body.
    let mut body = payload(&token);
    body["principal"]["installation_operator"] = json!(true);
    let parts: Vec<&str> = token.split('.').collect();
    let forged = format!("{}.{}.{}", parts[0], b64(body.to_string()), parts[2]);
    assert_eq!(world.reason(&forged, "catalog", METHOD), "signature");
    // No signature at all.
    let header = json!({ "alg": "none", "typ": "pavior-internal+jwt" });
    let forged = format!("{}.{}.", b64(header.to_string()), parts[1]);
    assert_eq!(world.reason(&forged, "catalog", METHOD), "algorithm");
    for garbage in ["", "..", "a.b.c"] {
        assert_eq!(world.reason(garbage, "catalog", METHOD), "malformed");
    }
}

#[test]
fn a_role_may_have_two_keys_while_one_replaces_the_other() {
    let clock = clock();
    let (old, new) = (InternalSigner::generate().unwrap(), InternalSigner::generate().unwrap());
    let keys = [&old, &new].map(|signer| ("gateway".to_owned(), signer.public()));
    let verifier = InternalVerifier::new(keys, clock.clone()).unwrap();
    for signer in [old, new] {
        let identity = ServiceIdentity::new("gateway", signer, clock.clone(), ids());
        let token = identity.mint(&grant(&alice(), None)).unwrap();
        assert!(verifier.verify(token.to_str().unwrap(), "catalog", METHOD).is_ok());
    }
}

#[test]
fn signer_keys_come_from_pem() {
    let key = SigningKey::generate().unwrap();
    let signer = InternalSigner::from_pem(&key.to_pem().unwrap()).unwrap();
    assert_eq!(signer.public(), key.public());
}

/// A handler that tells what it saw.
async fn handler(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let permit = request.extensions().get::<Permit>().cloned();
    assert!(!request.headers().contains_key(INTERNAL_TOKEN), "the token goes no further");
    assert_eq!(
        current().map(|permit| permit.principal().clone()),
        permit.as_ref().map(|p| p.principal().clone())
    );
    let mut response = Response::new(Body::empty());
    if let Some(permit) = permit {
        let seen = format!("{} {} {}", permit.caller(), permit.principal().name, permit.organization());
        response.headers_mut().insert("seen", seen.parse().unwrap());
        if let Some(decision) = permit.decision() {
            let decided = format!("{} {}", decision.decision, permit.request_id());
            response.headers_mut().insert("decided", decided.parse().unwrap());
        }
    }
    Ok(response)
}

fn server(
    world: &World,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ use<> {
    let rules = CallRules::of(&governance::services("catalog")).unwrap();
    authn_layer(world.verifier.clone(), "catalog", rules).layer(service_fn(handler))
}

async fn ask(world: &World, path: &str, headers: HeaderMap) -> Response<Body> {
    let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
    *request.headers_mut() = headers;
    server(world).oneshot(request).await.unwrap()
}

fn code(response: &Response<Body>) -> Code {
    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn the_layer_lets_in_only_valid_tokens_of_allowed_callers() {
    let world = world();
    let with = |tokens: &[&str]| {
        let mut headers = HeaderMap::new();
        for token in tokens {
            headers.append(INTERNAL_TOKEN, token.parse().unwrap());
        }
        headers
    };
    let allowed = decision(Effect::Allow);
    let token = world.identity.mint(&grant(&alice(), Some(&allowed))).unwrap();
    let token = token.to_str().unwrap().to_owned();
    let good = ask(&world, METHOD, with(&[&token])).await;
    assert_eq!(code(&good), Code::Ok);
    assert_eq!(good.headers()["seen"], "gateway organizations/acme/users/alice acme");
    assert_eq!(code(&ask(&world, METHOD, HeaderMap::new()).await), Code::Unauthenticated);
    assert_eq!(code(&ask(&world, METHOD, with(&["x.y.z"])).await), Code::Unauthenticated);
    assert_eq!(code(&ask(&world, METHOD, with(&[&token, &token])).await), Code::Unauthenticated);
}

pub(crate) fn decision(effect: Effect) -> DecisionRef {
    DecisionRef { decision: "d-1".to_owned(), effect, ..Default::default() }
}

/// What becomes of a call of `method` that `by` makes with this action and decision.
async fn outcome(
    world: &World,
    by: &ServiceIdentity,
    method: &str,
    action: &str,
    decision: Option<&DecisionRef>,
) -> Result<(), String> {
    let path = format!("/{method}");
    let who = alice();
    let token = by.mint(&Grant { method: &path, action, decision, ..grant(&who, None) }).unwrap();
    let response = ask(world, &path, HeaderMap::from_iter([(INTERNAL_TOKEN.parse().unwrap(), token)])).await;
    match Status::from_header_map(response.headers()) {
        None => Ok(()),
        Some(status) => {
            assert_eq!(status.code(), Code::PermissionDenied, "{status}");
            let decoded = from_status(&status);
            assert!(decoded.is(ErrorReason::CallerNotAllowed), "{status}");
            assert_eq!(decoded.metadata["caller"], by.role());
            Err(status.message().to_owned())
        }
    }
}

/// The full name of a method that the catalog answers.
fn full(method: &str) -> String {
    let of = |service: &str| format!("{service}/{method}");
    let mut services = governance::services("catalog").into_iter();
    let found = services.find(|service| methods::method(&format!("/{}", of(service))).is_some());
    of(found.unwrap_or("pavior.catalog.v1.CatalogService"))
}

#[tokio::test]
async fn the_key_of_provisioning_changes_nothing_but_the_entities_of_its_resources() {
    let world = world();
    let allowed = decision(Effect::Allow);
    let catalog = |method: &str| full(method);
    for (method, action) in [
        ("CreateUser", "identity.users.create"),
        ("UpdateGroup", "identity.groups.update"),
        ("PublishTemplateVersion", "catalog.templateVersions.publish"),
        ("CreateEntity", "catalog.entities.create"),
        ("ImportEntities", "catalog.entities.import"),
        ("GetDirectory", "catalog.directory.get"),
    ] {
        // Nor does it help to claim a decision: only the gateway asks for one.
        for (action, decided) in [("", None), (action, None), (action, Some(&allowed))] {
            let refused = outcome(&world, &world.provisioning, &catalog(method), action, decided).await;
            let wanted = format!("`provisioning` is not allowed to call `/{}`", catalog(method));
            assert_eq!(refused, Err(wanted), "{method} {action}");
        }
    }
    for method in ["GetEntity", "GetTemplateVersion", "MatchResourceDefinitions", "RegisterEntity"] {
        let path = format!("/{}", catalog(method));
        let system = Permit::for_system(&world.provisioning.authority(), "acme");
        let seen = sent(&world, &path, world.provisioning.request(&system, ())).await.unwrap();
        assert_eq!(seen, "provisioning organizations/pavior/services/provisioning acme", "{method}");
    }
    // What is internal to others is closed to the gateway as well.
    for method in ["RegisterEntity", "UnregisterEntity", "GetDirectory"] {
        let refused = outcome(&world, &world.identity, &catalog(method), "", Some(&allowed)).await;
        assert_eq!(refused, Err(format!("`gateway` is not allowed to call `/{}`", catalog(method))));
    }
    let unknown = outcome(&world, &world.identity, &catalog("Nothing"), "", Some(&allowed)).await;
    assert_eq!(unknown, Err(format!("`gateway` is not allowed to call `/{}`", catalog("Nothing"))));
}

#[tokio::test]
async fn a_change_needs_a_decision_about_its_own_action() {
    let world = world();
    let (allowed, denied, approval) =
        (decision(Effect::Allow), decision(Effect::Deny), decision(Effect::RequireApproval));
    let (update, action) = ("pavior.identity.v1.IdentityService/UpdateGroup", "identity.groups.update");
    let call = async |action: &str, decided| outcome(&world, &world.identity, update, action, decided).await;
    assert_eq!(call(action, Some(&allowed)).await, Ok(()));
    let missing = Err("`gateway` brings no decision about `identity.groups.update`".to_owned());
    assert_eq!(call("", Some(&allowed)).await, missing);
    assert_eq!(call(action, None).await, missing);
    assert_eq!(call(action, Some(&denied)).await, missing);
    // The catalog makes no plan that an approval could be bound to.
    assert_eq!(call(action, Some(&approval)).await, missing);
    let other = "identity.groups.get";
    let wrong =
        Err("a decision about `identity.groups.get` does not allow `identity.groups.update`".to_owned());
    assert_eq!(call(other, Some(&allowed)).await, wrong);
    // Nor is one about something else a way into what needs none.
    let facts = "pavior.governance.internal.v1.ResourceFactsService/GetResourceFacts";
    assert_eq!(outcome(&world, &world.identity, facts, "", None).await, Ok(()));
    let wrong = outcome(&world, &world.identity, facts, other, Some(&allowed)).await;
    assert_eq!(
        wrong,
        Err("a decision about `identity.groups.get` does not allow `governance.facts.get`".to_owned())
    );
}

#[test]
fn every_method_must_say_who_may_call_it() {
    let rules = CallRules::of(&governance::services("catalog")).unwrap();
    let callers = rules.callers();
    let of = |method: &str| -> Vec<(&str, Brings)> {
        let path = format!("/{}", full(method));
        callers.iter().filter(|(of, _, _)| *of == path).map(|(_, role, brings)| (*role, *brings)).collect()
    };
    assert_eq!(of("CreateUser"), [("gateway", Brings::Decision)]);
    assert_eq!(of("GetEntity"), [("gateway", Brings::Decision), ("provisioning", Brings::Nothing)]);
    assert_eq!(of("GetDirectory"), [("policy", Brings::Nothing)]);
    let policy = CallRules::of(&governance::services("policy")).unwrap();
    let words: Vec<_> =
        policy.callers().into_iter().filter(|(_, _, brings)| *brings == Brings::Word).collect();
    let ask = "/pavior.policy.internal.v1.OperationApprovalService/CreateApproval";
    assert_eq!(words, [(ask, "provisioning", Brings::Word)]);
    // The contract towards drivers is not spoken by services to each other, and says nothing of the kind.
    let error = CallRules::of(&["pavior.driver.v1.DriverService", "no.Such"]).unwrap_err();
    let AuthError::Uncallable(offenders) = &error else { panic!("{error}") };
    assert!(offenders[0].contains("/pavior.driver.v1.DriverService/"), "{error}");
    assert_eq!(offenders.last().unwrap(), "`no.Such`: there is no such service");
}

/// A transport that ends in the server, as between two services of one process.
pub(crate) fn wired(world: &World, identity: &ServiceIdentity) -> Transport {
    let server = server(world);
    identity.transport(
        Transport::new(service_fn(move |request| {
            let server = server.clone();
            async move { server.oneshot(request).await.map_err(|never| -> BoxError { match never {} }) }
        })),
        "catalog",
    )
}

async fn seen(transport: &Transport, request: tonic::Request<()>) -> String {
    let (metadata, extensions, ()) = request.into_parts();
    let mut request = Request::builder().uri(OWN_READ).body(Body::empty()).unwrap();
    *request.headers_mut() = metadata.into_headers();
    *request.extensions_mut() = extensions;
    let response = transport.clone().oneshot(request).await.unwrap();
    response.headers().get("seen").map(|seen| seen.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn calls_are_signed_for_the_caller_for_the_service_or_for_nobody() {
    let world = world();
    let transport = wired(&world, &world.identity);
    let token = world.token();
    let permit = world.verifier.verify(&token, "catalog", METHOD).unwrap();
    let request = world.identity.request(&permit, ());
    assert_eq!(seen(&transport, request).await, "gateway organizations/acme/users/alice acme");
    let request = world.identity.request_as(&Arc::new(alice()), "acme", ());
    assert_eq!(seen(&transport, request).await, "gateway organizations/acme/users/alice acme");
    let system = Permit::for_system(&world.identity.authority(), "acme");
    let request = world.identity.request(&system, ());
    assert_eq!(seen(&transport, request).await, "gateway organizations/pavior/services/gateway acme");
    let alone = tonic::Request::new(());
    assert_eq!(seen(&transport, alone).await, "gateway organizations/pavior/services/gateway pavior");
}

#[tokio::test]
async fn minted_tokens_are_reused_for_some_seconds_for_the_same_principal_only() {
    let world = world();
    let kept = Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let keep = kept.clone();
    let transport = world.identity.transport(
        Transport::new(service_fn(move |request: Request<Body>| {
            let token = request.headers()[INTERNAL_TOKEN].to_str().unwrap().to_owned();
            keep.lock().unwrap().push(token);
            std::future::ready(Ok::<_, BoxError>(Response::new(Body::empty())))
        })),
        "catalog",
    );
    let bob = Principal { name: "organizations/acme/users/bob".to_owned(), ..alice() };
    for (who, wait) in [(alice(), 0), (alice(), 24), (bob, 0), (alice(), 1)] {
        world.clock.advance(Duration::from_secs(wait));
        seen(&transport, world.identity.request_as(&Arc::new(who), "acme", ())).await;
    }
    let tokens = kept.lock().unwrap().clone();
    assert_eq!(tokens[0], tokens[1], "reused");
    assert_ne!(tokens[1], tokens[2], "another principal");
    assert_ne!(tokens[1], tokens[3], "too old to be used again");
    for token in &tokens[1..] {
        assert_eq!(world.reason(token, "catalog", METHOD), "accepted");
    }
}

#[test]
fn a_shared_token_says_the_same_for_every_call_that_it_is_used_for() {
    let world = world();
    let decision = |id: &str, revision: &str| DecisionRef {
        decision: id.to_owned(),
        effect: Effect::Allow,
        policies_digest: revision.to_owned(),
        ..Default::default()
    };
    let who = alice();
    let (first, later, other) = (decision("d-1", "r-1"), decision("d-2", "r-1"), decision("d-3", "r-2"));
    let shared = |grant: Grant<'_>| {
        let token = world.identity.mint_shared(&grant).unwrap();
        token.to_str().unwrap().to_owned()
    };
    let token = shared(grant(&who, Some(&first)));
    assert_eq!(token, shared(grant(&who, Some(&later))), "a decision that says the same");
    assert_ne!(token, shared(grant(&who, Some(&other))), "another revision of policy");
    assert_ne!(token, shared(Grant { resource: "organizations/acme", ..grant(&who, Some(&first)) }));
    assert_ne!(token, shared(Grant { method: "/a.B/C", ..grant(&who, Some(&first)) }));
    // It is checked on every use as any other, also where the signature is known.
    for _ in 0..2 {
        assert_eq!(world.reason(&token, "catalog", METHOD), "accepted");
        assert_eq!(world.reason(&token, "catalog", "/a.B/C"), "method");
        assert_eq!(world.reason(&token, "policy", METHOD), "audience");
    }
    world.clock.advance(Duration::from_secs(65));
    assert_eq!(world.reason(&token, "catalog", METHOD), "expired");
}
