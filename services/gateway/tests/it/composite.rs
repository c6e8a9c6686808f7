//! `PlatformService`: several services side by side, each part governed.

use pavior_proto::google::longrunning::{ListOperationsRequest, ListOperationsResponse, Operation};
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_proto::pavior::identity::v1::{
    GetGroupRequest, Group, ListMembershipsRequest, ListMembershipsResponse, Membership,
};
use pavior_proto::pavior::platform::v1::platform_service_client::PlatformServiceClient;
use pavior_proto::pavior::platform::v1::{
    GetProjectOverviewRequest, ListAllowedActionsRequest as Question, WhoAmIRequest,
};
use pavior_proto::pavior::policy::internal::v1::{ListAllowedActionsRequest, ListAllowedActionsResponse};
use pavior_proto::pavior::policy::v1::{
    Approval, Decision, Effect, ListApprovalsRequest, ListApprovalsResponse,
};
use pavior_proto::pavior::provisioning::v1::{
    Environment, GetProjectRequest, ListEnvironmentsRequest, ListEnvironmentsResponse, ListPipelinesRequest,
    ListPipelinesResponse, ListRunsRequest, ListRunsResponse, OperationMetadata, Pipeline, Project, Run,
};
use pavior_rpc::Problem;
use pavior_rpc::problem::any;
use pavior_testkit::dynamic;
use tonic::{Code, Status};

use crate::harness::{DECIDE, FACTS, World, allow};

const PROJECT: &str = "organizations/acme/projects/hello";
const OPERATION: &str = "organizations/acme/operations/0a000000-0000-7000-8000-000000000000";

/// A project with everything in it.
fn furnish(world: &World) {
    let provisioning = world.fake("provisioning");
    let path = |method: &str| dynamic::path(&dynamic::method_of("provisioning", method));
    provisioning.on(&path("GetProject"), |request: GetProjectRequest| {
        let owner = "organizations/acme/groups/payments".to_owned();
        Ok(Project { name: request.name, owner, ..Default::default() })
    });
    provisioning.on(&path("ListEnvironments"), |request: ListEnvironmentsRequest| {
        assert_eq!((request.page_size, request.order_by.as_str()), (100, "name"));
        let name = format!("{}/environments/development", request.parent);
        Ok(ListEnvironmentsResponse {
            environments: vec![Environment { name, ..Default::default() }],
            ..Default::default()
        })
    });
    provisioning.on(&path("ListPipelines"), |request: ListPipelinesRequest| {
        let name = format!("{}/pipelines/main", request.parent);
        Ok(ListPipelinesResponse {
            pipelines: vec![Pipeline { name, ..Default::default() }],
            ..Default::default()
        })
    });
    provisioning.on(&path("ListRuns"), |request: ListRunsRequest| {
        let name = format!("{}/runs/run-1", request.parent);
        Ok(ListRunsResponse { runs: vec![Run { name, ..Default::default() }], ..Default::default() })
    });
    provisioning.on("/google.longrunning.Operations/ListOperations", |request: ListOperationsRequest| {
        let wanted = format!("done = false AND (target = \"{PROJECT}\" OR target = \"{PROJECT}/*\")");
        assert_eq!((request.page_size, request.filter), (50, wanted));
        let metadata = OperationMetadata { target: PROJECT.to_owned(), ..Default::default() };
        let operations = vec![Operation {
            name: OPERATION.to_owned(),
            metadata: Some(any(&metadata)),
            ..Default::default()
        }];
        Ok(ListOperationsResponse { operations, ..Default::default() })
    });
    let approvals = "/pavior.policy.v1.ApprovalService/ListApprovals";
    world.fake("policy").on(approvals, |request: ListApprovalsRequest| {
        let about = format!("(resource = \"{PROJECT}\" OR resource = \"{PROJECT}/*\")");
        assert_eq!(request.filter, format!("state = PENDING AND {about}"));
        assert_eq!((request.page_size, request.order_by.as_str()), (50, "name"));
        let resource = format!("{PROJECT}/environments/production");
        let approvals = vec![Approval { resource, ..Default::default() }];
        Ok(ListApprovalsResponse { approvals, ..Default::default() })
    });
    world.fake("catalog").on("/pavior.identity.v1.IdentityService/GetGroup", |request: GetGroupRequest| {
        Ok(Group { name: request.name, ..Default::default() })
    });
}

const MEMBERSHIPS: &str = "/pavior.identity.v1.IdentityService/ListMemberships";

async fn client(world: &World) -> PlatformServiceClient<crate::harness::Caller> {
    PlatformServiceClient::new(world.caller("alice", "acme").await)
}

fn overview() -> GetProjectOverviewRequest {
    GetProjectOverviewRequest { name: format!("{PROJECT}/overview") }
}

#[tokio::test]
async fn whoami_tells_the_caller_and_the_groups_of_both_sources() {
    let world = World::new().await;
    world.fake("catalog").on(MEMBERSHIPS, |request: ListMembershipsRequest| {
        assert_eq!(request.parent, "organizations/acme/groups/-");
        assert_eq!(request.filter, "member = \"organizations/acme/users/alice\"");
        let name = "organizations/acme/groups/platform/memberships/alice".to_owned();
        let memberships = vec![Membership { name, ..Default::default() }];
        Ok(ListMembershipsResponse { memberships, ..Default::default() })
    });
    let me = client(&world).await.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(me.principal.unwrap().name, "organizations/acme/users/alice");
    assert_eq!(me.groups, ["organizations/acme/groups/payments", "organizations/acme/groups/platform"]);
    assert!(world.fake("policy").calls(DECIDE).is_empty(), "a token is enough");
    // Somebody without a membership has only the groups of the token.
    world.fake("catalog").on(MEMBERSHIPS, |_: ListMembershipsRequest| Ok(ListMembershipsResponse::default()));
    let me = client(&world).await.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(me.groups, ["organizations/acme/groups/payments"]);
    // Without a token nobody is anybody.
    let status =
        PlatformServiceClient::new(world.channel().await).who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn allowed_actions_are_those_of_the_resource_that_policy_allows() {
    let world = World::new().await;
    world.fake("provisioning").on(FACTS, |request: GetResourceFactsRequest| {
        Ok(ResourceFacts {
            name: request.name,
            owner: "organizations/acme/groups/payments".to_owned(),
            ..Default::default()
        })
    });
    world.fake("policy").on(
        "/pavior.policy.internal.v1.DecisionService/ListAllowedActions",
        |request: ListAllowedActionsRequest| {
            let resource = request.resource.unwrap();
            let known = resource.name == PROJECT || resource.name.contains("/operations/");
            let owner = if known { "organizations/acme/groups/payments" } else { "" };
            assert_eq!(resource.owner, owner, "{}", resource.name);
            let some = |actions: Vec<String>| {
                actions.into_iter().filter(|action| !action.starts_with("identity.users")).collect()
            };
            let (actions, planned_actions) = (some(request.actions), some(request.planned_actions));
            let changes_refused = "an older copy".to_owned();
            Ok(ListAllowedActionsResponse { actions, planned_actions, changes_refused })
        },
    );
    let ask = |resource: &str| Question { resource: resource.to_owned() };
    let mut client = client(&world).await;
    let answer = client.list_allowed_actions(ask(PROJECT)).await.unwrap().into_inner();
    assert_eq!(answer.changes_refused, "an older copy");
    // What makes a plan is not promised before there is one.
    for (action, sure) in [
        ("provisioning.environments.create", false),
        ("provisioning.projects.delete", false),
        ("provisioning.projects.get", true),
    ] {
        let listed = [&answer.actions, &answer.planned_actions].map(|list| list.contains(&action.to_owned()));
        assert_eq!(listed, [sure, !sure], "{action}: {answer:?}");
    }
    let all: Vec<&String> = answer.actions.iter().chain(&answer.planned_actions).collect();
    assert!(!all.iter().any(|action| action.starts_with("catalog.")), "{all:?}");
    // What amounts to something that is not allowed is not allowed.
    let answer = client.list_allowed_actions(ask("organizations/acme")).await.unwrap().into_inner();
    assert!(answer.actions.contains(&"identity.groups.create".to_owned()), "{answer:?}");
    assert!(!answer.actions.contains(&"catalog.entities.import".to_owned()), "{answer:?}");
    // Operations are no messages of ours: what can be done with one is known by its paths.
    let answer =
        client.list_allowed_actions(ask("organizations/acme/operations/a")).await.unwrap().into_inner();
    for action in ["cancel", "delete", "get", "retry"].map(|verb| format!("provisioning.operations.{verb}")) {
        assert!(answer.actions.contains(&action), "{action}: {answer:?}");
    }
    let status = client.list_allowed_actions(ask("organizations/evil/projects/a")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_overview_has_every_part_and_each_is_governed_as_the_callers_own_call() {
    let world = World::new().await;
    furnish(&world);
    let overview = client(&world).await.get_project_overview(overview()).await.unwrap().into_inner();
    assert_eq!((&overview.unavailable_fields, &overview.incomplete_fields), (&None, &None));
    assert_eq!(overview.project.unwrap().name, PROJECT);
    assert_eq!(overview.owner.unwrap().name, "organizations/acme/groups/payments");
    assert_eq!(overview.environments.len(), 1);
    assert_eq!(overview.latest_runs[0].name, format!("{PROJECT}/pipelines/main/runs/run-1"));
    assert_eq!(overview.active_operations[0].operation, OPERATION);
    assert_eq!(overview.active_operations[0].metadata.as_ref().unwrap().target, PROJECT);
    assert_eq!(overview.pending_approvals.len(), 1);
    // The overview itself and its seven parts.
    let asked = world.fake("policy").calls(DECIDE);
    assert_eq!(asked.len(), 8);
    let call = &world.fake("provisioning").calls("/pavior.provisioning.v1.PipelineService/ListRuns")[0];
    assert_eq!(call.permit.as_ref().unwrap().principal().name, "organizations/acme/users/alice");
    assert_eq!(call.permit.as_ref().unwrap().action(), "provisioning.runs.list");
    assert!(call.permit.as_ref().unwrap().decision().is_some());
}

#[tokio::test]
async fn an_overview_shows_the_newest_of_all_and_names_the_lists_that_have_more() {
    let world = World::new().await;
    furnish(&world);
    let provisioning = world.fake("provisioning");
    let path = |method: &str| dynamic::path(&dynamic::method_of("provisioning", method));
    provisioning.on(&path("ListPipelines"), |request: ListPipelinesRequest| {
        let pipelines = ["a", "b"]
            .map(|id| Pipeline { name: format!("{}/pipelines/{id}", request.parent), ..Default::default() });
        Ok(ListPipelinesResponse { pipelines: pipelines.to_vec(), ..Default::default() })
    });
    provisioning.on(&path("ListRuns"), |request: ListRunsRequest| {
        assert_eq!((request.page_size, request.order_by.as_str()), (10, "create_time desc"));
        // Those of one pipeline are made between those of the other.
        let second = i64::from(request.parent.ends_with("/b"));
        let run = |n: i64| Run {
            name: format!("{}/runs/run-{n}", request.parent),
            create_time: Some(prost_types::Timestamp { seconds: 2 * n + second, nanos: 0 }),
            ..Default::default()
        };
        Ok(ListRunsResponse { runs: (1..=6).rev().map(run).collect(), ..Default::default() })
    });
    provisioning.on(&path("ListEnvironments"), |_: ListEnvironmentsRequest| {
        Ok(ListEnvironmentsResponse { next_page_token: "more".to_owned(), ..Default::default() })
    });
    provisioning.on("/google.longrunning.Operations/ListOperations", |_: ListOperationsRequest| {
        Ok(ListOperationsResponse { next_page_token: "more".to_owned(), ..Default::default() })
    });
    let overview = client(&world).await.get_project_overview(overview()).await.unwrap().into_inner();
    let runs = overview.latest_runs.iter().map(|run| run.name.rsplit("pipelines/").next().unwrap());
    let runs: Vec<&str> = runs.collect();
    assert_eq!(runs.len(), 10);
    assert_eq!(runs[..3], ["b/runs/run-6", "a/runs/run-6", "b/runs/run-5"]);
    let incomplete = overview.incomplete_fields.unwrap().paths;
    assert_eq!(incomplete, ["environments", "latest_runs", "active_operations"]);
    assert_eq!(overview.unavailable_fields, None);
}

#[tokio::test]
async fn an_overview_names_what_could_not_be_had() {
    let world = World::new().await;
    furnish(&world);
    world.decide(|request| {
        let effect = match request.action.as_str() {
            "policy.approvals.list" | "identity.groups.get" => Effect::Deny,
            _ => Effect::Allow,
        };
        Ok(Decision { effect: effect.into(), ..allow() })
    });
    world
        .fake("provisioning")
        .on("/pavior.provisioning.v1.PipelineService/ListPipelines", |_: ListPipelinesRequest| {
            Err::<ListPipelinesResponse, _>(Status::internal("broken"))
        });
    let overview_ = client(&world).await.get_project_overview(overview()).await.unwrap().into_inner();
    assert_eq!(overview_.unavailable_fields.unwrap().paths, ["latest_runs", "pending_approvals"]);
    assert!(overview_.owner.is_none(), "absent, as the caller may not see it");
    assert_eq!(overview_.environments.len(), 1);
    // Without the project there is no overview.
    world.fake("provisioning").on(
        "/pavior.provisioning.v1.ProjectService/GetProject",
        |request: GetProjectRequest| {
            Err::<Project, _>(Problem::not_found("provisioning.pavior.dev/Project", request.name).into())
        },
    );
    let status = client(&world).await.get_project_overview(overview()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}
