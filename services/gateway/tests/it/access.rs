//! Who gets in, and what the services behind see of it.

use std::time::Duration;

use pavior_auth::{InternalSigner, ServiceIdentity};
use pavior_core::id_gen::SystemIds;
use pavior_proto::pavior::catalog::v1::catalog_service_client::CatalogServiceClient;
use pavior_proto::pavior::catalog::v1::{Entity, GetEntityRequest};
use pavior_rpc::problem::{ErrorReason, from_status};
use tonic::{Code, Request};

use crate::harness::{Bearer, ENTITY, GET_ENTITY, World};

fn get(name: &str) -> GetEntityRequest {
    GetEntityRequest { name: name.to_owned(), ..Default::default() }
}

fn answer_entities(world: &World) {
    world
        .fake("catalog")
        .on(GET_ENTITY, |request: GetEntityRequest| Ok(Entity { name: request.name, ..Default::default() }));
}

#[tokio::test]
async fn callers_without_a_valid_token_are_refused_and_recorded_together() {
    let world = World::new().await;
    answer_entities(&world);
    let expired = world.token("alice", "acme");
    let mut client = CatalogServiceClient::new(world.channel().await);
    let mut refusals = vec![client.get_entity(get(ENTITY)).await.unwrap_err()];
    world.clock.advance(Duration::from_secs(700));
    let fresh = world.token("alice", "acme");
    let (signed, _) = fresh.rsplit_once('.').unwrap();
    for header in [
        "Bearer".to_owned(),
        "Bearer not.a.token".to_owned(),
        format!("Basic {fresh}"),
        format!("Bearer {expired}"),
        format!("Bearer {signed}.AAAA"),
    ] {
        let mut client = CatalogServiceClient::with_interceptor(world.channel().await, Bearer(header));
        refusals.push(client.get_entity(get(ENTITY)).await.unwrap_err());
    }
    let mut twice = Request::new(get(ENTITY));
    twice.metadata_mut().append("authorization", format!("Bearer {fresh}").parse().unwrap());
    twice.metadata_mut().append("authorization", format!("Bearer {fresh}").parse().unwrap());
    refusals.push(client.get_entity(twice).await.unwrap_err());
    let not_a_token =
        ("NOT_A_TOKEN", "the credential is not a token: send one JWT as `authorization: Bearer <token>`");
    let expected = [
        ("NO_TOKEN", "the request has no token: send `authorization: Bearer <token>`"),
        not_a_token,
        not_a_token,
        not_a_token,
        ("EXPIRED", "the token has expired or has no `exp`: get a new one"),
        (
            "NOT_TRUSTED",
            "the token is not signed with a current key of an issuer that is accepted here: get one from such an \
             issuer",
        ),
        not_a_token,
    ];
    assert_eq!(refusals.len(), expected.len());
    for (status, (cause, message)) in refusals.iter().zip(expected) {
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, message));
        let decoded = from_status(status);
        assert!(decoded.is(ErrorReason::Unauthenticated));
        assert_eq!(decoded.metadata["cause"], cause);
    }
    assert!(world.fake("catalog").calls(GET_ENTITY).is_empty());
    let record = world.records(1).await.remove(0);
    assert_eq!((record.organization.as_str(), record.sequence), ("pavior", 1));
    assert_eq!(record.event.unwrap().action, "gateway.authentication.refuse");
    // The same credential in good order is fine.
    let mut client = world.catalog("alice", "acme").await;
    assert_eq!(client.get_entity(get(ENTITY)).await.unwrap().into_inner().name, ENTITY);
}

#[tokio::test]
async fn services_get_a_signed_token_with_the_decision_and_nothing_of_the_callers_credential() {
    let world = World::new().await;
    answer_entities(&world);
    let mut client = world.catalog("alice", "acme").await;
    let mut request = Request::new(get(ENTITY));
    request.set_timeout(Duration::from_secs(7));
    let headers = [
        ("x-request-id", "request-7"),
        ("x-pavior-principal", "organizations/acme/users/root"),
        ("x-pavior-internal", "a.b.c"),
        ("x-forwarded-for", "10.0.0.1"),
        ("cookie", "secret"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("accept-language", "de"),
    ];
    for (name, value) in headers {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    let response = client.get_entity(request).await.unwrap();
    assert_eq!(response.metadata().get("x-request-id").unwrap(), "request-7");
    assert_eq!(response.metadata().get("x-from-service").unwrap(), "yes");
    assert_eq!(response.metadata().get("x-pavior-policy-decision").unwrap(), "decision-1");

    let call = world.fake("catalog").calls(GET_ENTITY).remove(0);
    let permit = call.permit.as_ref().unwrap();
    assert_eq!((permit.caller(), permit.organization()), ("gateway", "acme"));
    assert_eq!(permit.principal().name, "organizations/acme/users/alice");
    assert_eq!(permit.principal().groups, ["payments"]);
    assert_eq!((permit.action(), permit.resource()), ("catalog.entities.get", ENTITY));
    assert_eq!(permit.request_id(), "request-7");
    let decision = permit.decision().unwrap();
    assert_eq!((decision.decision.as_str(), decision.policies_digest.as_str()), ("decision-1", "digest-1"));
    for gone in ["authorization", "cookie", "x-pavior-principal", "x-pavior-internal", "x-forwarded-for"] {
        assert!(!call.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(call.headers["x-request-id"], "request-7");
    assert_eq!(call.headers["accept-language"], "de");
    let trace = call.headers["traceparent"].to_str().unwrap();
    assert!(trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{trace}");
    let timeout = pavior_rpc::context::parse_timeout(&call.headers).unwrap();
    assert!(timeout > Duration::from_secs(3) && timeout < Duration::from_secs(7), "{timeout:?}");
}

#[tokio::test]
async fn a_token_for_one_method_of_one_service_is_worth_nothing_elsewhere() {
    let world = World::new().await;
    answer_entities(&world);
    // Directly at the service: nothing, an outsider's token, a forged internal one.
    let address = world.address_of("catalog");
    let channel = tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap();
    let mut direct = CatalogServiceClient::new(channel.connect().await.unwrap());
    let forger = ServiceIdentity::new(
        "gateway",
        InternalSigner::generate().unwrap(),
        world.clock.clone(),
        std::sync::Arc::new(SystemIds),
    );
    let principal = pavior_core::principal::Principal {
        kind: pavior_core::principal::PrincipalKind::User,
        name: "organizations/acme/users/root".to_owned(),
        organization: "acme".to_owned(),
        subject: "root".to_owned(),
        groups: Vec::new(),
        email: None,
        display_name: None,
        installation_operator: true,
        on_behalf_of: None,
    };
    let forged = forger.mint(&pavior_auth::Grant {
        audience: "catalog",
        method: GET_ENTITY,
        principal: &principal,
        organization: "acme",
        action: "catalog.entities.get",
        resource: ENTITY,
        decision: None,
        facts: "",
        request_id: "",
    });
    let forged = forged.unwrap().to_str().unwrap().to_owned();
    for (name, value) in [
        ("x-nothing", String::new()),
        ("authorization", format!("Bearer {}", world.token("alice", "acme"))),
        ("x-pavior-internal", forged.clone()),
    ] {
        let mut request = Request::new(get(ENTITY));
        request.metadata_mut().insert(name, value.parse().unwrap());
        assert_eq!(direct.get_entity(request).await.unwrap_err().code(), Code::Unauthenticated, "{name}");
    }
    // The forged one does not open the gateway either.
    let mut client = CatalogServiceClient::new(world.channel().await);
    let mut request = Request::new(get(ENTITY));
    request.metadata_mut().insert("x-pavior-internal", forged.parse().unwrap());
    assert_eq!(client.get_entity(request).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(world.fake("catalog").calls(GET_ENTITY).is_empty());
}

#[tokio::test]
async fn internal_and_unknown_methods_are_not_routed() {
    let world = World::new().await;
    let caller = world.caller("root", "acme").await;
    let mut policy =
        pavior_proto::pavior::policy::internal::v1::decision_service_client::DecisionServiceClient::new(
            caller.clone(),
        );
    let status = policy
        .decide(pavior_proto::pavior::policy::internal::v1::DecideRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(from_status(&status).is(ErrorReason::Unimplemented));
    let mut audit =
        pavior_proto::pavior::audit::internal::v1::recorder_service_client::RecorderServiceClient::new(
            caller.clone(),
        );
    let append = pavior_proto::pavior::audit::internal::v1::AppendRecordsRequest::default();
    assert_eq!(audit.append_records(append).await.unwrap_err().code(), Code::Unimplemented);
    let mut facts =
        pavior_proto::pavior::governance::internal::v1::resource_facts_service_client::ResourceFactsServiceClient::new(
            caller,
        );
    let ask = pavior_proto::pavior::governance::internal::v1::GetResourceFactsRequest {
        name: ENTITY.to_owned(),
        ..Default::default()
    };
    assert_eq!(facts.get_resource_facts(ask).await.unwrap_err().code(), Code::Unimplemented);
    assert!(world.fake("policy").calls(crate::harness::DECIDE).is_empty());
}

#[tokio::test]
async fn a_service_that_refuses_the_gateway_is_not_the_callers_fault() {
    let world = World::new().await;
    world.fake("catalog").on(GET_ENTITY, |_: GetEntityRequest| {
        Err::<Entity, _>(pavior_rpc::Problem::unauthenticated().into())
    });
    let status = world.catalog("alice", "acme").await.get_entity(get(ENTITY)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}
