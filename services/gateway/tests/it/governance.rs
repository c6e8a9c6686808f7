//! What policy says, and what happens when it says nothing.

use std::time::Duration;

use pavior_core::Fault;
use pavior_proto::google::rpc::Code as RpcCode;
use pavior_proto::pavior::audit::v1::audit_event::outcome::Status as Ended;
use pavior_proto::pavior::catalog::v1::{DeleteEntityRequest, Entity, GetEntityRequest, UpdateEntityRequest};
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_proto::pavior::identity::v1::identity_service_client::IdentityServiceClient;
use pavior_proto::pavior::identity::v1::{CreateOrganizationRequest, ListOrganizationsRequest};
use pavior_proto::pavior::policy::internal::v1::{DecideRequest, DecisionStage};
use pavior_proto::pavior::policy::v1::{ApprovalRequirement, Decision, Effect, PolicyType, Reason};
use pavior_proto::pavior::provisioning::v1::project_service_client::ProjectServiceClient;
use pavior_proto::pavior::provisioning::v1::{CreateProjectRequest, DeleteEnvironmentRequest, Project};
use pavior_proto::pavior::r#type::v1::principal::Kind;
use pavior_rpc::Problem;
use pavior_rpc::facts::fingerprint;
use pavior_rpc::problem::{ErrorReason, from_status};
use pavior_testkit::wait_for;
use tonic::{Code, Status};

use crate::harness::{DECIDE, ENTITY, FACTS, GET_ENTITY, World, allow};

const ENVIRONMENT: &str = "organizations/acme/projects/hello/environments/production";
const DELETE: &str = "/pavior.provisioning.v1.ProjectService/DeleteEnvironment";
const UPDATE_ENTITY: &str = "/pavior.catalog.v1.CatalogService/UpdateEntity";
const CREATE: &str = "/pavior.provisioning.v1.ProjectService/CreateProject";

fn get(name: &str) -> GetEntityRequest {
    GetEntityRequest { name: name.to_owned(), ..Default::default() }
}

pub(crate) fn deny(reasons: &[(&str, PolicyType, &str)]) -> Decision {
    let reason = |(id, set, message): &(&str, PolicyType, &str)| Reason {
        rule_id: (*id).to_owned(),
        policy_type: (*set).into(),
        message: (*message).to_owned(),
        fix: "ask for staging".to_owned(),
        ..Reason::default()
    };
    Decision {
        effect: Effect::Deny.into(),
        reasons: reasons.iter().map(reason).collect(),
        granting_roles: vec!["organizations/acme/roles/developer".to_owned()],
        ..allow()
    }
}

#[tokio::test]
async fn a_denial_names_decision_and_rules_and_is_recorded() {
    let world = World::new().await;
    world.decide(|_| Ok(deny(&[("viewers-read-only", PolicyType::Access, "viewers may only read")])));
    let mut client = world.catalog("victor", "acme").await;
    let status = client.get_entity(get(ENTITY)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let start =
        format!("Permission 'catalog.entities.get' denied on resource '{ENTITY}' (or it might not exist).");
    assert!(status.message().starts_with(&start), "{}", status.message());
    let decoded = from_status(&status);
    assert!(decoded.is(ErrorReason::AccessDenied));
    assert_eq!(decoded.metadata["decision"], "decision-1");
    assert_eq!(decoded.metadata["rules"], "viewers-read-only");
    assert_eq!(decoded.metadata["action"], "catalog.entities.get");
    assert!(world.fake("catalog").calls(GET_ENTITY).is_empty());

    let record = world.records(1).await.remove(0);
    assert_eq!((record.organization.as_str(), record.sequence), ("acme", 1));
    let event = record.event.unwrap();
    assert_eq!(event.principal.unwrap().name, "organizations/acme/users/victor");
    assert_eq!(event.target.unwrap().name, ENTITY);
    assert_eq!(event.action, "catalog.entities.get");
    let outcome = event.outcome.unwrap();
    assert_eq!(
        (outcome.status(), outcome.code(), outcome.reason.as_str()),
        (Ended::Denied, RpcCode::PermissionDenied, "ACCESS_DENIED")
    );
    let decision = event.decision.unwrap();
    assert_eq!((decision.decision.as_str(), decision.effect()), ("decision-1", Effect::Deny));
    assert_eq!(decision.rule_ids, ["viewers-read-only"]);
}

/// A slip in the name of a group is found without being told which groups there are.
#[tokio::test]
async fn a_denial_of_what_is_made_for_a_group_names_the_field() {
    let world = World::new().await;
    world.fake("provisioning").on(FACTS, |request: GetResourceFactsRequest| {
        Ok(ResourceFacts {
            name: request.name,
            exists: true,
            environment_class: "production".to_owned(),
            ..Default::default()
        })
    });
    world.decide(|_| Ok(deny(&[])));
    let owner = "organizations/acme/groups/storefrnt";
    let request = CreateProjectRequest {
        parent: "organizations/acme".to_owned(),
        project: Some(Project { owner: owner.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let mut client = ProjectServiceClient::new(world.caller("alice", "acme").await);
    let status = client.create_project(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let decoded = from_status(&status);
    assert!(decoded.is(ErrorReason::AccessDenied));
    assert_eq!(decoded.metadata["field"], "project.owner");
    assert_eq!(decoded.metadata["decision"], "decision-1");
    assert!(status.message().contains(&format!("`project.owner` = `{owner}`")), "{}", status.message());
}

#[tokio::test]
async fn policy_gets_the_caller_the_action_the_facts_and_the_owner_to_be() {
    let world = World::new().await;
    world.fake("provisioning").on(FACTS, |request: GetResourceFactsRequest| {
        Ok(ResourceFacts {
            name: request.name,
            exists: true,
            environment_class: "production".to_owned(),
            ..Default::default()
        })
    });
    let operation = || Ok(pavior_proto::google::longrunning::Operation::default());
    world.fake("provisioning").on(CREATE, move |_: CreateProjectRequest| operation());
    let mut client = ProjectServiceClient::new(world.caller("alice", "acme").await);
    let owner = "organizations/acme/groups/payments";
    let request = CreateProjectRequest {
        parent: "organizations/acme".to_owned(),
        project: Some(Project { owner: owner.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    client.create_project(request.clone()).await.unwrap();
    let asked: DecideRequest = world.fake("policy").calls(DECIDE).remove(0).decode();
    assert_eq!(asked.organization, "organizations/acme");
    assert_eq!(asked.principal.unwrap().name, "organizations/acme/users/alice");
    assert_eq!(asked.action, "provisioning.projects.create");
    assert_eq!((asked.stage, asked.plan_follows), (DecisionStage::Admission.into(), true));
    let context = asked.context.unwrap();
    assert_eq!(context.new_owner, owner);
    let facts = asked.resource.unwrap();
    assert_eq!((facts.name.as_str(), facts.environment_class.as_str()), ("organizations/acme", "production"));
    // An owner that cannot be one is the caller's fault.
    for owner in ["payments", "organizations/acme/roles/viewer", "organizations/evil/groups/payments"] {
        let mut request = request.clone();
        request.project.as_mut().unwrap().owner = owner.to_owned();
        let status = client.create_project(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{owner}");
        assert_eq!(from_status(&status).violations[0].field, "project.owner");
    }
    // What a user is to own is decided on as if nobody was to.
    let mut personal = request.clone();
    personal.project.as_mut().unwrap().owner = "organizations/acme/users/alice".to_owned();
    client.create_project(personal).await.unwrap();
    let asked: DecideRequest = world.fake("policy").calls(DECIDE).remove(1).decode();
    assert_eq!(asked.context.unwrap().new_owner, "");
    // Facts and decisions are asked for on behalf of the caller, with tokens for their own services.
    let permit = world.fake("provisioning").calls(FACTS)[0].permit.clone().unwrap();
    assert_eq!(permit.principal().name, "organizations/acme/users/alice");
}

#[tokio::test]
async fn policy_is_asked_about_both_owners_when_an_update_writes_the_owner() {
    let world = World::new().await;
    let payments = "organizations/acme/groups/payments";
    let storefront = "organizations/acme/groups/storefront";
    world.fake("catalog").on(FACTS, move |request: GetResourceFactsRequest| {
        Ok(ResourceFacts {
            name: request.name,
            exists: true,
            owner: payments.to_owned(),
            ..Default::default()
        })
    });
    world.fake("catalog").on(UPDATE_ENTITY, |_: UpdateEntityRequest| Ok(Entity::default()));
    let mut client = world.catalog("alice", "acme").await;
    let update = |owner: &str, paths: &[&str]| UpdateEntityRequest {
        entity: Some(Entity { name: ENTITY.to_owned(), owner: owner.to_owned(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
        ..Default::default()
    };
    for (owner, paths, asked) in [
        (storefront, &["owner"][..], (storefront, true)),
        (storefront, &["`owner`", "spec"], (storefront, true)),
        (storefront, &["*"], (storefront, true)),
        (storefront, &[], (storefront, true)),
        ("", &["*"], ("", true)),
        ("", &["owner"], ("", true)),
        // To a person is to nobody whom policy knows.
        ("organizations/acme/users/alice", &["owner"], ("", true)),
        ("", &[], ("", false)),
        (storefront, &["spec", "labels.owner"], ("", false)),
    ] {
        client.update_entity(update(owner, paths)).await.unwrap();
        let question: DecideRequest = world.fake("policy").calls(DECIDE).pop().unwrap().decode();
        assert_eq!(question.resource.unwrap().owner, payments);
        let context = question.context.unwrap();
        assert_eq!((context.new_owner.as_str(), context.moves_owner), asked, "`{owner}` {paths:?}");
        // The service looks whether that is still so when it changes the entity.
        let permit = world.fake("catalog").calls(UPDATE_ENTITY).pop().unwrap().permit.unwrap();
        let owner = payments.to_owned();
        let facts = ResourceFacts { name: ENTITY.to_owned(), exists: true, owner, ..Default::default() };
        assert_eq!(permit.facts(), fingerprint(&facts));
    }
    let status = client.update_entity(update("organizations/evil/groups/x", &["owner"])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(from_status(&status).violations[0].field, "entity.owner");
}

#[tokio::test]
async fn an_agent_is_known_to_policy_and_to_the_service_with_its_person() {
    let world = World::new().await;
    world.fake("catalog").on(GET_ENTITY, |_: GetEntityRequest| Ok(Entity::default()));
    let claims = pavior_auth::DevClaims {
        subject: "bot".to_owned(),
        organization: "acme".to_owned(),
        kind: "agent".to_owned(),
        on_behalf_of: "pia".to_owned(),
        ..Default::default()
    };
    let token = world.issuer.mint(&claims, time::Duration::minutes(10)).unwrap();
    let mut bot = pavior_proto::pavior::catalog::v1::catalog_service_client::CatalogServiceClient::new(
        tonic::service::interceptor::InterceptedService::new(
            world.channel().await,
            crate::harness::Bearer(format!("Bearer {token}")),
        ),
    );
    bot.get_entity(get(ENTITY)).await.unwrap();
    let asked: DecideRequest = world.fake("policy").calls(DECIDE).remove(0).decode();
    let principal = asked.principal.unwrap();
    assert_eq!(principal.name, "organizations/acme/agents/bot");
    assert_eq!(principal.on_behalf_of, "organizations/acme/users/pia");
    let permit = world.fake("catalog").calls(GET_ENTITY)[0].permit.clone().unwrap();
    assert_eq!(permit.principal().on_behalf_of.as_deref(), Some("organizations/acme/users/pia"));
    // Refused, it is recorded as itself, for its person.
    world.decide(|_| Ok(deny(&[])));
    bot.get_entity(get(ENTITY)).await.unwrap_err();
    let who = world.records(1).await.remove(0).event.unwrap().principal.unwrap();
    assert_eq!((who.kind(), who.name.as_str()), (Kind::Agent, "organizations/acme/agents/bot"));
    assert_eq!((who.on_behalf_of.as_str(), who.via.as_str()), ("organizations/acme/users/pia", ""));
}

#[tokio::test]
async fn guardrails_that_object_are_a_failed_precondition_with_the_way_out() {
    let world = World::new().await;
    world.decide(|_| {
        Ok(deny(&[
            ("no-public", PolicyType::Guardrail, "public ingress"),
            ("eu-only", PolicyType::Guardrail, "region"),
            // A rule may speak several times, and is named once.
            ("no-public", PolicyType::Guardrail, "public bucket"),
        ]))
    });
    let status = world.catalog("alice", "acme").await.get_entity(get(ENTITY)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let decoded = from_status(&status);
    assert!(decoded.is(ErrorReason::GuardrailDenied));
    assert_eq!(decoded.metadata["rules"], "no-public,eu-only");
    let violations: Vec<_> = decoded.preconditions.iter().map(|p| (&*p.subject, &*p.description)).collect();
    let subjects: Vec<&str> = violations.iter().map(|(subject, _)| *subject).collect();
    assert_eq!(subjects, ["no-public", "eu-only", "no-public"]);
    assert!(violations.iter().all(|(_, way_out)| *way_out == "ask for staging"), "{violations:?}");
    // Where access policies speak as well, the caller may not, whatever is changed.
    world.decide(|_| {
        Ok(deny(&[
            ("no-public", PolicyType::Guardrail, "public ingress"),
            ("viewer", PolicyType::Access, ""),
        ]))
    });
    let status = world.catalog("alice", "acme").await.get_entity(get(ENTITY)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn many_policies_with_much_to_say_still_fit_into_the_answer() {
    let world = World::new().await;
    let long = "ä".repeat(900);
    let reasons: Vec<Reason> = (0..500)
        .map(|i| Reason { rule_id: format!("policy-{i}"), message: long.clone(), ..Reason::default() })
        .collect();
    let many = reasons.clone();
    world.decide(move |_| Ok(Decision { effect: Effect::Deny.into(), reasons: many.clone(), ..allow() }));
    let status = world.catalog("alice", "acme").await.get_entity(get(ENTITY)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(from_status(&status).metadata["rules"].starts_with("policy-0,policy-1,"));
    // The same on the way on: the token still fits into a header.
    world.decide(move |_| Ok(Decision { reasons: reasons.clone(), ..allow() }));
    let status = world.catalog("alice", "acme").await.get_entity(get(ENTITY)).await.unwrap_err();
    assert_eq!(status.message(), "no answer", "admitted, and answered by the service");
}

#[tokio::test]
async fn an_approval_that_no_plan_can_get_is_a_no() {
    let world = World::new().await;
    world.decide(|_| {
        let approval = ApprovalRequirement {
            quorum: 2,
            group: "organizations/acme/groups/security".to_owned(),
            rule_ids: vec!["two-eyes".to_owned()],
            ttl: None,
        };
        Ok(Decision { effect: Effect::RequireApproval.into(), requirements: vec![approval], ..allow() })
    });
    let status = world.catalog("alice", "acme").await.get_entity(get(ENTITY)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(from_status(&status).is(ErrorReason::NotApproved));
    // An effect that nobody knows is no yes.
    world.decide(|_| Ok(Decision { effect: 99, ..allow() }));
    let status = world.catalog("alice", "acme").await.get_entity(get(ENTITY)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(world.fake("catalog").calls(GET_ENTITY).is_empty());
}

#[tokio::test]
async fn another_organizations_names_are_refused_as_if_policy_had_done_it() {
    let world = World::new().await;
    world.decide(|_| Ok(deny(&[])));
    let mut mallory = world.catalog("mallory", "evil").await;
    let refused = mallory.get_entity(get(ENTITY)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(world.fake("policy").calls(DECIDE).is_empty(), "policy is not asked across the border");
    let inside = world.catalog("alice", "acme").await.get_entity(get(ENTITY)).await.unwrap_err();
    assert_eq!(refused.message(), inside.message());
    // Recorded with the one who tried, not in the log of the other organization.
    assert_eq!(world.records(1).await[0].organization, "evil");
    // The installation itself is for its operators.
    let make = || CreateOrganizationRequest { organization_id: "new".to_owned(), ..Default::default() };
    let mut mallory = IdentityServiceClient::new(world.caller("mallory", "evil").await);
    assert_eq!(mallory.create_organization(make()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(world.fake("policy").calls(DECIDE).len(), 1);
    // Admitted without asking policy: which are the caller's own is for the service to say, which has no answer here.
    let own = ListOrganizationsRequest::default();
    assert_eq!(mallory.list_organizations(own).await.unwrap_err().message(), "no answer");
    assert_eq!(world.fake("policy").calls(DECIDE).len(), 1);
    world.decide(|_| Ok(allow()));
    let mut root = IdentityServiceClient::new(world.caller("root", "acme").await);
    assert_eq!(root.create_organization(make()).await.unwrap_err().message(), "no answer");
    let asked: DecideRequest = world.fake("policy").calls(DECIDE).remove(1).decode();
    assert_eq!(asked.organization, "organizations/pavior");
    assert!(asked.principal.unwrap().installation_operator);
}

#[tokio::test]
async fn malformed_names_are_the_callers_fault() {
    let world = World::new().await;
    let mut client = world.catalog("alice", "acme").await;
    for name in
        ["", "shop", "organizations", "organizations/ACME/kinds/a", "organizations/acme/../x/y", "é/x"]
    {
        let status = client.get_entity(get(name)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
        assert_eq!(from_status(&status).violations[0].field, "name", "{name}");
    }
    assert!(world.fake("policy").calls(DECIDE).is_empty());
}

#[tokio::test]
async fn without_policy_nothing_goes_on_and_with_it_everything_does_again() {
    let world = World::new().await;
    world
        .fake("catalog")
        .on(GET_ENTITY, |request: GetEntityRequest| Ok(Entity { name: request.name, ..Default::default() }));
    let mut client = world.catalog("alice", "acme").await;
    client.get_entity(get(ENTITY)).await.unwrap();
    let address = world.stop("policy").await;
    let status = client.get_entity(get(ENTITY)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let decoded = from_status(&status);
    assert!(decoded.is(ErrorReason::DependencyUnavailable));
    assert!(decoded.retry_after.is_some());
    assert_eq!(world.fake("catalog").calls(GET_ENTITY).len(), 1);
    world.restart("policy", address).await;
    wait_for("policy", Duration::from_secs(10), || {
        let mut client = client.clone();
        async move { client.get_entity(get(ENTITY)).await.map_err(|status| status.code()) }
    })
    .await;
}

#[tokio::test]
async fn errors_of_policy_and_of_facts_are_never_the_answer() {
    let world = World::new().await;
    let codes = [
        Code::NotFound,
        Code::InvalidArgument,
        Code::PermissionDenied,
        Code::Internal,
        Code::Unauthenticated,
    ];
    for code in codes {
        world.decide(move |_| Err(Status::new(code, "policy's own business")));
        let status = world.catalog("alice", "acme").await.get_entity(get(ENTITY)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{code:?}");
        assert!(!status.message().contains("business"));
    }
    world.decide(|_| Ok(allow()));
    let delete = || DeleteEnvironmentRequest { name: ENVIRONMENT.to_owned(), ..Default::default() };
    let mut client = ProjectServiceClient::new(world.caller("alice", "acme").await);
    for code in [Code::NotFound, Code::PermissionDenied, Code::Internal] {
        world.fake("provisioning").on(FACTS, move |_: GetResourceFactsRequest| {
            Err::<ResourceFacts, _>(Status::new(code, "business"))
        });
        assert_eq!(client.delete_environment(delete()).await.unwrap_err().code(), Code::Unavailable);
    }
    // Only that the name is not one of theirs is something about the call.
    world.fake("provisioning").on(FACTS, |_: GetResourceFactsRequest| {
        Err::<ResourceFacts, _>(Problem::invalid_field("name", Fault::Pattern, "no").into())
    });
    let status = client.delete_environment(delete()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(from_status(&status).violations[0].field, "name");
    assert!(world.fake("provisioning").calls(DELETE).is_empty());
}

#[tokio::test]
async fn the_services_own_errors_pass_unchanged() {
    let world = World::new().await;
    let made: Status = Problem::not_found("catalog.pavior.dev/Entity", ENTITY).into();
    let (message, details) = (made.message().to_owned(), made.details().to_vec());
    world.fake("catalog").on(GET_ENTITY, move |_: GetEntityRequest| {
        Err::<Entity, _>(Problem::not_found("catalog.pavior.dev/Entity", ENTITY).into())
    });
    let status = world.catalog("alice", "acme").await.get_entity(get(ENTITY)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, message.as_str()));
    assert_eq!(status.details(), details);
}

#[tokio::test]
async fn facts_are_asked_for_with_the_id_of_a_change_that_may_be_a_repetition() {
    let world = World::new().await;
    world.fake("catalog").on(FACTS, |request: GetResourceFactsRequest| {
        Ok(ResourceFacts { name: request.name, exists: true, ..Default::default() })
    });
    let mut client = world.catalog("alice", "acme").await;
    let id = "0f0f0f0f-0f0f-4f0f-8f0f-0f0f0f0f0f0f";
    // What only validates is answered anew each time; what is not an id is for the service to refuse.
    for (request_id, validate_only, asked) in
        [(id, false, id), (id, true, ""), ("x", false, ""), ("", false, "")]
    {
        let request = DeleteEntityRequest {
            name: ENTITY.to_owned(),
            request_id: request_id.to_owned(),
            validate_only,
            ..Default::default()
        };
        let refused = client.delete_entity(request).await.unwrap_err();
        assert_eq!(refused.message(), "no answer", "it is passed on");
        let ask: GetResourceFactsRequest = world.fake("catalog").calls(FACTS).pop().unwrap().decode();
        assert_eq!((ask.name.as_str(), ask.request_id.as_str()), (ENTITY, asked));
        assert_eq!(ask.method, "/pavior.catalog.v1.CatalogService/DeleteEntity");
        assert_eq!(ask.principal, "organizations/acme/users/alice");
    }
}
