//! Whom a service may name in its calls: itself, or the caller whose call it is working on.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use pavior_auth::{Grant, Permit, ServiceIdentity};
use pavior_core::audit::{self, Effect, PrincipalRef};
use pavior_core::clock::Clock as _;
use pavior_core::principal::{Principal, PrincipalKind};
use pavior_rpc::problem::{ErrorReason, from_status};
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt as _;

use crate::b64;
use crate::internal::{METHOD, World, alice, decision, grant, wired, world};

/// A call that provisioning answers.
const CALLED: &str = "/pavior.provisioning.v1.ProjectService/CreateProject";

/// What the handler saw of a call that provisioning sends.
pub(crate) async fn sent(
    world: &World,
    path: &str,
    request: tonic::Request<()>,
) -> Result<String, Box<Status>> {
    let (_, extensions, ()) = request.into_parts();
    let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
    *request.extensions_mut() = extensions;
    let response = wired(world, &world.provisioning).oneshot(request).await.unwrap();
    match Status::from_header_map(response.headers()) {
        Some(status) => {
            assert!(!response.headers().contains_key("seen"));
            Err(Box::new(status))
        }
        None => {
            let told = ["seen", "decided"].map(|name| response.headers().get(name));
            let told: Vec<_> = told.into_iter().flatten().map(|text| text.to_str().unwrap()).collect();
            Ok(told.join(" "))
        }
    }
}

async fn refused(world: &World, request: tonic::Request<()>) -> Code {
    sent(world, METHOD, request).await.unwrap_err().code()
}

/// What the gateway signs for [`CALLED`].
fn called(who: &Principal) -> Grant<'_> {
    let (action, resource) = ("provisioning.projects.create", "organizations/acme");
    Grant { audience: "provisioning", method: CALLED, action, resource, ..grant(who, None) }
}

/// The permit of a call whose token `by` signed.
fn permitted(world: &World, by: &ServiceIdentity, grant: &Grant<'_>) -> Permit {
    let token = by.mint(grant).unwrap();
    world.verifier.verify(token.to_str().unwrap(), grant.audience, CALLED).unwrap()
}

/// A token of provisioning that says whatever it likes.
fn by_hand(world: &World, claims: &Value) -> String {
    let pem = world.key.to_pem().unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let key = Ed25519KeyPair::from_pkcs8(&STANDARD.decode(body).unwrap()).unwrap();
    let header =
        json!({ "alg": "EdDSA", "typ": "pavior-internal+jwt", "kid": world.provisioning.public().kid() });
    let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    format!("{signed}.{}", b64(key.sign(signed.as_bytes())))
}

#[tokio::test]
async fn a_service_names_nobody_on_its_own_word() {
    let world = world();
    let named = world.provisioning.request_as(&Arc::new(alice()), "acme", ());
    let status = sent(&world, METHOD, named).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let wanted = "`provisioning` brings no token of the gateway for `organizations/acme/users/alice`";
    assert_eq!(status.message(), wanted);
    let decoded = from_status(&status);
    assert!(decoded.is(ErrorReason::CallerNotAllowed), "{status}");
    assert_eq!((&*decoded.metadata["caller"], &*decoded.metadata["method"]), ("provisioning", METHOD));
    assert_eq!(decoded.metadata["principal"], alice().name);
    // Neither another service, nor itself with more than it has, or as one of the organization.
    let itself = |by: &ServiceIdentity| Permit::for_system(&by.authority(), "acme").principal().clone();
    for other in [
        itself(&world.identity),
        Principal { installation_operator: true, ..itself(&world.provisioning) },
        Principal { organization: "acme".to_owned(), ..itself(&world.provisioning) },
    ] {
        let named = world.provisioning.request_as(&Arc::new(other), "acme", ());
        assert_eq!(refused(&world, named).await, Code::PermissionDenied);
    }
}

#[tokio::test]
async fn a_service_acts_for_the_caller_whose_call_it_works_on() {
    let world = world();
    let (who, decided) = (alice(), decision(Effect::Allow));
    let called = Grant { decision: Some(&decided), ..called(&who) };
    let permit = permitted(&world, &world.identity, &called);
    assert!(!format!("{permit:?}").contains("eyJ"), "the token is not printed");
    let request = || world.provisioning.request(&permit, ());
    assert!(!format!("{:?}", request()).contains("eyJ"), "the token is not printed");
    let seen = "provisioning organizations/acme/users/alice acme d-1 r-1";
    assert_eq!(sent(&world, METHOD, request()).await.unwrap(), seen);
    // For as long as a call can be worked on.
    world.clock.advance(Duration::from_secs(60 + 120 + 4));
    assert_eq!(sent(&world, METHOD, request()).await.unwrap(), seen);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(refused(&world, request()).await, Code::Unauthenticated);
}

#[tokio::test]
async fn the_token_of_a_call_proves_nothing_to_another_service_or_in_another_organization() {
    let world = world();
    let who = alice();
    // A call of the policy service, of which provisioning got hold.
    let permit = permitted(&world, &world.identity, &Grant { audience: "policy", ..called(&who) });
    assert_eq!(refused(&world, world.provisioning.request(&permit, ())).await, Code::Unauthenticated);
    // What provisioning signed itself is no proof: it is not even shown.
    let permit = permitted(&world, &world.provisioning, &called(&who));
    assert_eq!(refused(&world, world.provisioning.request(&permit, ())).await, Code::PermissionDenied);
    // Nor when it is put there by hand.
    let own = world.provisioning.mint(&called(&who)).unwrap();
    let gateways = world.identity.mint(&called(&who)).unwrap();
    let now = world.clock.now().unix_timestamp();
    let told = |proof: &str, organization: &str| {
        json!({
            "iss": "provisioning", "aud": "catalog", "sub": who.name, "iat": now, "exp": now + 60,
            "jti": "0190a0a0-0000-7000-8000-000000000001", "proof": proof, "organization": organization,
        })
    };
    let reason = |claims: &Value| world.reason(&by_hand(&world, claims), "catalog", METHOD);
    let (own, gateways) = (own.to_str().unwrap(), gateways.to_str().unwrap());
    assert_eq!(reason(&told(gateways, "acme")), "accepted");
    assert_eq!(reason(&told(own, "acme")), "proof");
    assert_eq!(reason(&told(gateways, "umbrella")), "proof");
    // One that rests on a proof is none itself.
    assert_eq!(reason(&told(&by_hand(&world, &told(gateways, "acme")), "acme")), "proof");
    // Two names leave open which of them is meant, and none names nobody.
    let mut claims = told(gateways, "acme");
    claims["principal"] = serde_json::to_value(&who).unwrap();
    assert_eq!(reason(&claims), "subject");
    assert_eq!(reason(&told("", "acme")), "subject");
    let mut claims = told(gateways, "acme");
    claims["sub"] = json!("organizations/acme/users/bob");
    assert_eq!(reason(&claims), "subject");
}

#[tokio::test]
async fn a_record_names_the_service_that_goes_on_after_the_answer() {
    let world = world();
    let bot = Principal {
        kind: PrincipalKind::Agent,
        name: "organizations/acme/agents/bot".to_owned(),
        on_behalf_of: Some(alice().name),
        ..alice()
    };
    let wanted = PrincipalRef {
        on_behalf_of: "organizations/acme/users/alice".to_owned(),
        ..PrincipalRef::new(audit::PrincipalKind::Agent, "organizations/acme/agents/bot")
    };
    assert_eq!(permitted(&world, &world.identity, &called(&bot)).acting(), wanted);
    // Provisioning works on the call of the gateway.
    let proof = world.identity.mint(&called(&bot)).unwrap();
    let now = world.clock.now().unix_timestamp();
    let handed_on = json!({
        "iss": "provisioning", "aud": "catalog", "sub": bot.name, "iat": now, "exp": now + 60,
        "jti": "0190a0a0-0000-7000-8000-000000000001", "proof": proof.to_str().unwrap(), "organization": "acme",
    });
    let permit = world.verifier.verify(&by_hand(&world, &handed_on), "catalog", METHOD).unwrap();
    assert_eq!((permit.caller(), permit.acting()), ("provisioning", wanted.clone()));
    // It goes on when the call was answered.
    let via = "organizations/pavior/services/provisioning".to_owned();
    assert_eq!(
        permitted(&world, &world.provisioning, &called(&bot)).acting(),
        PrincipalRef { via, ..wanted }
    );
    let itself = Permit::for_system(&world.provisioning.authority(), "acme").acting();
    assert_eq!(
        itself,
        PrincipalRef::new(audit::PrincipalKind::Service, "organizations/pavior/services/provisioning")
    );
}
