//! The real service through its generated client: the main job from the first ask to the last deletion.

use futures::StreamExt;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::watch_operation_response::Event;
use pavior_rpc::convert::{from_struct, to_struct};
use pavior_testkit::db::{both, sqlite};
use serde_json::json;
use tonic::Code;

use crate::fixture::*;

/// The commit that was deployed.
fn commit(deployment: &pb::Deployment) -> &str {
    &deployment.artifact.as_ref().unwrap().commit
}

#[tokio::test]
async fn a_project_comes_up_with_everything_that_belongs_to_it() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let done = f.project().await;
        let project: pb::Project = response(&done);
        assert_eq!(project.name, HELLO);
        assert_eq!(project.template_version, format!("{ACME}/templates/web-service/versions/1.0.0"));
        assert_eq!(
            from_struct(&project.parameters.clone().unwrap()),
            json!({"language": "rust", "size": "small"})
        );
        assert_eq!((project.state(), project.active_operation.as_str()), (pb::project::State::Active, ""));
        let metadata = metadata(&done);
        assert_eq!(metadata.state(), pb::operation_metadata::State::Succeeded);
        assert_eq!((metadata.steps.len(), metadata.progress_percent), (6, 100));

        let development = f.environment("development").await;
        assert_eq!(development.state(), pb::environment::State::Active);
        let workload = format!("{HELLO}/environments/development/resources/workload");
        let [endpoint] = &development.endpoints[..] else { panic!("{development:?}") };
        assert!(endpoint.url.starts_with("fake://"), "{development:?}");
        assert_eq!(endpoint.resource, workload);
        let name = format!("{HELLO}/environments/development/deployments/deployment-1");
        assert_eq!(development.active_deployments, [name.as_str()]);
        let deployment = f
            .deployments()
            .get_deployment(f.call(pb::GetDeploymentRequest { name, ..Default::default() }))
            .await
            .unwrap()
            .into_inner();
        assert_eq!((deployment.state(), commit(&deployment)), (pb::deployment::State::Active, "main"));
        assert_eq!((&deployment.resource, &deployment.url), (&workload, &endpoint.url));
        let name = format!("{HELLO}/pipelines/pipeline/runs/run-1");
        let run = f
            .pipelines()
            .get_run(f.call(pb::GetRunRequest { name: name.clone(), ..Default::default() }))
            .await
            .unwrap()
            .into_inner();
        assert_eq!((run.state(), run.artifacts.len(), run.steps.len()), (pb::run::State::Succeeded, 1, 1));
        assert_eq!((run.trigger(), run.error.as_ref()), (pb::run::Trigger::Creation, None));
        let [step] = &run.steps[..] else { panic!("{run:?}") };
        assert_eq!((step.state(), step.exit_code), (pb::run::step::State::Succeeded, Some(0)));
        let nanos = |time: &Option<prost_types::Timestamp>| {
            let time = time.as_ref().unwrap();
            i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
        };
        assert_eq!(nanos(&step.end_time) - nanos(&step.start_time), 3_000_000);
        let pipeline = pb::GetPipelineRequest { name: format!("{HELLO}/pipelines/pipeline") };
        let pipeline = f.pipelines().get_pipeline(f.call(pipeline)).await.unwrap().into_inner();
        assert_eq!(pipeline.latest_run, name);

        // The secret reached the workload, and nothing else.
        let given = f.driver.inputs_of(&workload).unwrap();
        assert!(given["variables"]["URL"].as_str().unwrap().starts_with("s3cret-of"), "{given}");
        let shown = f
            .projects()
            .get_resource(f.call(pb::GetResourceRequest { name: workload, ..Default::default() }))
            .await
            .unwrap();
        assert!(!format!("{shown:?}").contains("s3cret-of"), "{shown:?}");
        let entity = format!("{ACME}/kinds/component/entities/hello");
        let owner = f.peers.state().entities.get(&entity).map(|entity| entity.owner.clone());
        assert_eq!(owner.as_deref(), Some("organizations/acme/groups/payments"));
    })
    .await;
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let f = Fixture::new(sqlite()).await;
    let mut request = hello();
    request.project_id = "Not An Id".into();
    request.request_id = "not a uuid".into();
    let project = request.project.as_mut().unwrap();
    project.owner = "organizations/other/groups/g".into();
    project.template_version = "web-service".into();
    let decoded = refused(f.projects().create_project(f.call(request)).await);
    assert_eq!(decoded.code, Code::InvalidArgument);
    let mut fields: Vec<_> = decoded.violations.iter().map(|violation| violation.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["project.owner", "project.template_version", "project_id", "request_id"]);

    let mut request = hello();
    let wrong = json!({"language": "cobol", "size": 5, "nope": true});
    request.project.as_mut().unwrap().parameters = to_struct(&wrong).ok();
    let decoded = refused(f.projects().create_project(f.call(request)).await);
    let mut fields: Vec<_> = decoded.violations.iter().map(|violation| violation.field.as_str()).collect();
    fields.sort_unstable();
    fields.dedup();
    assert_eq!(decoded.code, Code::InvalidArgument);
    assert!(
        fields.contains(&"project.parameters.language") && fields.contains(&"project.parameters.size"),
        "{fields:?}"
    );

    let mut request = hello();
    request.project.as_mut().unwrap().template_version =
        format!("{ACME}/templates/web-service/versions/9.9.9");
    let decoded = refused(f.projects().create_project(f.call(request)).await);
    assert_eq!((decoded.code, decoded.reason.as_str()), (Code::FailedPrecondition, "REFERENCE_NOT_FOUND"));
    assert_eq!(f.driver.effects(), 0);
}

#[tokio::test]
async fn the_same_request_gives_the_same_operation() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let request =
            pb::CreateProjectRequest { request_id: "6f2d1f44-5f10-4a3a-9d7a-0a5a4e3c2b1d".into(), ..hello() };
        let first = f.projects().create_project(f.call(request.clone())).await.unwrap().into_inner();
        let second = f.projects().create_project(f.call(request.clone())).await.unwrap().into_inner();
        assert_eq!(first.name, second.name);
        f.wait(first).await;
        let mut other = request;
        other.project.as_mut().unwrap().display_name = "another".into();
        let decoded = refused(f.projects().create_project(f.call(other)).await);
        assert_eq!((decoded.code, decoded.reason.as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
        let decoded = refused(f.projects().create_project(f.call(hello())).await);
        assert_eq!((decoded.code, decoded.reason.as_str()), (Code::AlreadyExists, "RESOURCE_ALREADY_EXISTS"));
    })
    .await;
}

#[tokio::test]
async fn a_guardrail_names_its_rule_and_its_fix_and_nothing_is_written() {
    let f = Fixture::new(sqlite()).await;
    let reason = json!({"ruleId": "no-projects", "policyType": "POLICY_TYPE_GUARDRAIL", "message": "no projects today", "fix": "come back tomorrow"});
    f.decide("provisioning.projects.create", json!({ "effect": "EFFECT_DENY", "reasons": [reason] }));
    let decoded = refused(f.projects().create_project(f.call(hello())).await);
    assert_eq!((decoded.code, decoded.reason.as_str()), (Code::FailedPrecondition, "GUARDRAIL_DENIED"));
    assert_eq!(decoded.metadata["decision"], "decision-0");
    let condition = &decoded.preconditions[0];
    assert_eq!((condition.r#type.as_str(), condition.subject.as_str()), ("POLICY", "no-projects"));
    assert_eq!(condition.description, "no projects today: come back tomorrow");
    let gone = f
        .projects()
        .get_project(f.call(pb::GetProjectRequest { name: HELLO.into(), ..Default::default() }))
        .await;
    assert_eq!(refused(gone).reason, "RESOURCE_NOT_FOUND");
    // The refusal itself is recorded.
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while f.peers.state().records.is_empty() {
        assert!(tokio::time::Instant::now() < until, "no record came");
        tokio::task::yield_now().await;
    }
    assert!(f.peers.state().records[0].contains("denied"));

    f.decide("provisioning.projects.create", json!({ "effect": "EFFECT_DENY" }));
    let decoded = refused(f.projects().create_project(f.call(hello())).await);
    assert_eq!((decoded.code, decoded.reason.as_str()), (Code::PermissionDenied, "ACCESS_DENIED"));
}

#[tokio::test]
async fn peers_that_are_down_refuse_and_leave_nothing() {
    let f = Fixture::new(sqlite()).await;
    for catalog in [true, false] {
        {
            f.peers.catalog.set_down(catalog);
            f.peers.policy.set_down(!catalog);
        }
        let decoded = refused(f.projects().create_project(f.call(hello())).await);
        assert_eq!((decoded.code, decoded.reason.as_str()), (Code::Unavailable, "DEPENDENCY_UNAVAILABLE"));
    }
    f.peers.policy.set_down(false);
    let list = pb::ListProjectsRequest { parent: ACME.into(), ..Default::default() };
    assert!(f.projects().list_projects(f.call(list)).await.unwrap().into_inner().projects.is_empty());
    f.project().await;
}

#[tokio::test]
async fn a_failed_step_undoes_everything_and_is_seen_in_the_stream() {
    let f = Fixture::new(sqlite()).await;
    f.driver.fail("development.workload");
    let operation = f.projects().create_project(f.call(hello())).await.unwrap().into_inner();
    let watch = pb::WatchOperationRequest { name: operation.name.clone(), start: None };
    let stream = f.operation_service().watch_operation(f.call(watch)).await.unwrap().into_inner();
    let all: Vec<_> = stream.map(Result::unwrap).collect().await;
    // Only the last one is done: whoever follows it from the beginning misses nothing.
    let done = all.iter().filter(|one| matches!(&one.event, Some(Event::Operation(told)) if told.done));
    assert_eq!(done.count(), 1);
    // It is the operation as it is then, error included.
    let Some(Event::Operation(last)) = all.last().unwrap().event.clone() else { panic!("{all:?}") };
    assert_eq!((&last.name, last.done), (&operation.name, true));
    assert_eq!(metadata(&last).state(), pb::operation_metadata::State::Compensated);
    assert_eq!(metadata(&last).steps.len(), 6);
    assert!(problem(&last).is_some_and(|said| said.starts_with("STEP_FAILED")), "{:?}", problem(&last));
    assert_eq!(said(metadata(&last).error), said(status(&last)));
    let undone: Vec<String> = all
        .iter()
        .filter_map(|message| match &message.event {
            Some(Event::Step(step)) if step.state() == pb::operation_step::State::Undone => {
                Some(step.step_id.clone())
            }
            _ => None,
        })
        .collect();
    assert_eq!(undone.len(), 5, "{undone:?}");
    assert_eq!(undone.last().unwrap(), "repository");
    // Any place of the stream can be gone on from, without a gap and without a repetition.
    for (index, message) in all.iter().enumerate() {
        let watch = pb::WatchOperationRequest {
            name: operation.name.clone(),
            start: pavior_rpc::stream::resume(&message.resume_token),
        };
        let stream = f.operation_service().watch_operation(f.call(watch)).await.unwrap().into_inner();
        let rest: Vec<String> = stream.map(|message| message.unwrap().resume_token).collect().await;
        let expected: Vec<String> =
            all[index + 1..].iter().map(|message| message.resume_token.clone()).collect();
        assert_eq!(rest, expected, "from {index}");
    }
    let done = f.wait(operation).await;
    let decoded = pavior_rpc::problem::from_rpc_status(&status(&done).unwrap());
    assert_eq!(
        (decoded.reason.as_str(), decoded.metadata["step"].as_str()),
        ("STEP_FAILED", "development.workload")
    );
    assert_eq!(f.driver.live(), Vec::<String>::new());
    assert!(f.peers.state().entities.is_empty());
    let gone = f
        .projects()
        .get_project(f.call(pb::GetProjectRequest { name: HELLO.into(), ..Default::default() }))
        .await;
    assert_eq!(refused(gone).reason, "RESOURCE_NOT_FOUND");
    // The name is free again.
    f.project().await;
}

#[tokio::test]
async fn run_deploy_promote_and_go_back() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let run = pb::RunPipelineRequest {
            name: format!("{HELLO}/pipelines/pipeline"),
            revision: "feature".into(),
            ..Default::default()
        };
        let done = f.wait(f.pipelines().run_pipeline(f.call(run)).await.unwrap().into_inner()).await;
        let run: pb::Run = response(&done);
        assert_eq!(
            (run.name.as_str(), run.commit.as_str()),
            (format!("{HELLO}/pipelines/pipeline/runs/run-2").as_str(), "feature")
        );

        let development = format!("{HELLO}/environments/development");
        let deploy = pb::CreateDeploymentRequest {
            parent: development.clone(),
            deployment: Some(pb::Deployment::default()),
            ..Default::default()
        };
        let done = f
            .wait(f.deployments().create_deployment(f.call(deploy.clone())).await.unwrap().into_inner())
            .await;
        assert_eq!(problem(&done), None);
        let deployment: pb::Deployment = response(&done);
        assert_eq!((commit(&deployment), deployment.state()), ("feature", pb::deployment::State::Active));
        let list = pb::ListDeploymentsRequest { parent: development.clone(), ..Default::default() };
        let list = f.deployments().list_deployments(f.call(list)).await.unwrap().into_inner().deployments;
        let states: Vec<_> = list.iter().map(|deployment| (commit(deployment), deployment.state())).collect();
        assert_eq!(
            states,
            [("feature", pb::deployment::State::Active), ("main", pb::deployment::State::Superseded)]
        );

        let staging = f.begin_environment("staging").await;
        assert_eq!(problem(&f.wait(staging).await), None);
        let back = pb::CreateDeploymentRequest {
            deployment: Some(pb::Deployment {
                source: Some(pb::deployment::Source::SourceRun(format!(
                    "{HELLO}/pipelines/pipeline/runs/run-1"
                ))),
                ..Default::default()
            }),
            ..deploy
        };
        let done = f.wait(f.deployments().create_deployment(f.call(back)).await.unwrap().into_inner()).await;
        let deployed: pb::Deployment = response(&done);
        assert_eq!(deployed.artifact.unwrap().commit, "main");
        let promote = pb::PromoteDeploymentRequest {
            name: deployed.name.clone(),
            environment: format!("{HELLO}/environments/staging"),
            ..Default::default()
        };
        let done =
            f.wait(f.deployments().promote_deployment(f.call(promote)).await.unwrap().into_inner()).await;
        let promoted: pb::Deployment = response(&done);
        assert_eq!(promoted.artifact.unwrap().commit, "main");
        assert_eq!(deployed.name, format!("{development}/deployments/deployment-3"));
        assert_eq!(promoted.source, Some(pb::deployment::Source::SourceDeployment(deployed.name.clone())));
        let deployed_name = deployed.name;
        let from = |source: String| pb::CreateDeploymentRequest {
            parent: development.clone(),
            deployment: Some(pb::Deployment {
                source: Some(pb::deployment::Source::SourceDeployment(source)),
                ..Default::default()
            }),
            ..Default::default()
        };
        // What stands elsewhere is promoted, and not deployed.
        for foreign in [deployed_name.replace("/hello/", "/other/"), promoted.name.clone()] {
            let decoded = refused(f.deployments().create_deployment(f.call(from(foreign))).await);
            let violation = &decoded.violations[0];
            assert_eq!(
                (decoded.code, violation.field.as_str(), violation.reason.as_str()),
                (Code::InvalidArgument, "deployment.source_deployment", "CONFLICT")
            );
            assert!(violation.description.contains("PromoteDeployment"), "{}", violation.description);
        }
        // An earlier one of the same environment is a way back.
        let earlier = format!("{development}/deployments/deployment-2");
        let done = f.deployments().create_deployment(f.call(from(earlier.clone()))).await;
        let again: pb::Deployment = response(&f.wait(done.unwrap().into_inner()).await);
        assert_eq!(commit(&again), "feature");
        assert_eq!(again.source, Some(pb::deployment::Source::SourceDeployment(earlier)));
        let command = f
            .driver
            .inputs_of(&format!("{HELLO}/environments/staging/resources/workload"))
            .unwrap()["command"]
            .clone();
        assert_eq!(command, json!(["/artifacts/main"]));

        // A deployment that does not come up leaves the former one running.
        f.driver.fail("staging.workload");
        let failing = pb::CreateDeploymentRequest {
            parent: format!("{HELLO}/environments/staging"),
            deployment: Some(pb::Deployment {
                source: Some(pb::deployment::Source::SourceRun(format!(
                    "{HELLO}/pipelines/pipeline/runs/run-2"
                ))),
                ..Default::default()
            }),
            ..Default::default()
        };
        let done =
            f.wait(f.deployments().create_deployment(f.call(failing)).await.unwrap().into_inner()).await;
        assert!(problem(&done).is_some());
        let environment = f.environment("staging").await;
        assert_eq!(
            (&environment.active_deployments[..], environment.state()),
            (&[promoted.name.clone()][..], pb::environment::State::Active)
        );
        let list = pb::ListDeploymentsRequest {
            parent: environment.name,
            filter: "state = FAILED".into(),
            ..Default::default()
        };
        assert_eq!(
            f.deployments().list_deployments(f.call(list)).await.unwrap().into_inner().deployments.len(),
            1
        );
    })
    .await;
}

#[tokio::test]
async fn an_environment_is_changed_in_place_and_back() {
    let f = Fixture::new(sqlite()).await;
    f.project().await;
    let before = f.environment("development").await;
    let update = |etag: &str| pb::UpdateEnvironmentRequest {
        environment: Some(pb::Environment {
            name: before.name.clone(),
            etag: etag.into(),
            parameters: to_struct(&json!({"size": "large"})).ok(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let decoded = refused(f.projects().update_environment(f.call(update("\"stale\""))).await);
    assert_eq!((decoded.code, decoded.reason.as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    let done = f
        .wait(f.projects().update_environment(f.call(update(&before.etag))).await.unwrap().into_inner())
        .await;
    assert_eq!(problem(&done), None);
    let database = format!("{HELLO}/environments/development/resources/database");
    assert_eq!(f.driver.inputs_of(&database).unwrap()["size"], "large");
    let after = f.environment("development").await;
    assert_eq!(from_struct(&after.parameters.unwrap()), json!({"size": "large"}));
    assert_ne!(after.etag, before.etag);
    let wrong = pb::UpdateEnvironmentRequest {
        environment: Some(pb::Environment {
            name: before.name.clone(),
            parameters: to_struct(&json!({"size": "huge"})).ok(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let decoded = refused(f.projects().update_environment(f.call(wrong)).await);
    assert_eq!(decoded.violations[0].field, "environment.parameters.size");
    let fixed = pb::UpdateEnvironmentRequest {
        environment: Some(pb::Environment {
            name: before.name,
            environment_class_id: "staging".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(refused(f.projects().update_environment(f.call(fixed)).await).code, Code::InvalidArgument);
}

#[tokio::test]
async fn a_project_is_owned_by_a_group_that_there_is() {
    let f = Fixture::new(sqlite()).await;
    let mut request = hello();
    request.project.as_mut().unwrap().owner = format!("{ACME}/groups/nobody");
    let decoded = refused(f.projects().create_project(f.call(request)).await);
    assert_eq!((decoded.code, decoded.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    assert_eq!(decoded.violations[0].field, "project.owner");
    assert_eq!(f.driver.effects(), 0);
}
