//! Projects with environments, and environments with several workloads.

use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::plan::intent::Request as Intended;
use pavior_testkit::db::both;
use serde_json::json;
use tonic::Code;

use crate::fixture::*;

const DEVELOPMENT: &str = "organizations/acme/projects/hello/environments/development";

/// Gives every environment of the class `development` a second workload, which runs the same artifact.
fn with_worker(f: &Fixture) {
    let mut state = f.peers.state();
    state.content["environments"]["development"]["resources"]["worker"] =
        json!({ "type": "workload", "inputs": { "command": ["${{ artifact.path }}", "work"] } });
}

async fn listed(f: &Fixture) -> Vec<pb::Environment> {
    let list = pb::ListEnvironmentsRequest { parent: HELLO.into(), ..Default::default() };
    f.projects().list_environments(f.call(list)).await.unwrap().into_inner().environments
}

async fn deployment(f: &Fixture, name: &str) -> pb::Deployment {
    let get = pb::GetDeploymentRequest { name: name.to_owned(), ..Default::default() };
    f.deployments().get_deployment(f.call(get)).await.unwrap().into_inner()
}

#[tokio::test]
async fn each_workload_of_an_environment_has_its_endpoint_and_its_deployment() {
    both(|db| async {
        let f = Fixture::new(db).await;
        with_worker(&f);
        f.project().await;
        let staging = f.projects().create_environment(f.call(environment_request("staging"))).await;
        f.wait(staging.unwrap().into_inner()).await;
        let environment = f.environment("development").await;
        let answering: Vec<_> = environment.endpoints.iter().map(|one| one.resource.clone()).collect();
        let workloads = ["worker", "workload"].map(|id| format!("{DEVELOPMENT}/resources/{id}"));
        assert_eq!(answering, workloads);
        assert!(environment.endpoints.iter().all(|one| one.url.starts_with("fake://")), "{environment:?}");
        assert_eq!(environment.active_deployments.len(), 2);
        for (name, workload) in environment.active_deployments.iter().zip(&workloads) {
            let deployment = deployment(&f, name).await;
            assert_eq!((deployment.state(), &deployment.resource), (pb::deployment::State::Active, workload));
        }
        // The list tells the same of each.
        let all = listed(&f).await;
        assert_eq!(all, [environment.clone(), f.environment("staging").await]);
        assert_eq!((all[1].endpoints.len(), all[1].active_deployments.len()), (1, 1));

        // Another artifact goes into both, and takes the place of what was in each.
        let run = pb::RunPipelineRequest {
            name: format!("{HELLO}/pipelines/pipeline"),
            revision: "feature".into(),
            ..Default::default()
        };
        f.wait(f.pipelines().run_pipeline(f.call(run)).await.unwrap().into_inner()).await;
        let deploy = pb::CreateDeploymentRequest {
            parent: DEVELOPMENT.into(),
            deployment_id: "chosen".into(),
            deployment: Some(pb::Deployment::default()),
            ..Default::default()
        };
        let taken = pb::CreateDeploymentRequest { deployment_id: "deployment-7".into(), ..deploy.clone() };
        let refusal = refused(f.deployments().create_deployment(f.call(taken)).await);
        let [violation] = &refusal.violations[..] else { panic!("{refusal:?}") };
        assert_eq!((violation.field.as_str(), violation.reason.as_str()), ("deployment_id", "RESERVED"));
        let done =
            f.wait(f.deployments().create_deployment(f.call(deploy)).await.unwrap().into_inner()).await;
        assert_eq!(problem(&done), None);
        assert_eq!(response::<pb::Deployment>(&done).name, format!("{DEVELOPMENT}/deployments/chosen"));
        let after = f.environment("development").await;
        for (name, workload) in after.active_deployments.iter().zip(&workloads) {
            let deployment = deployment(&f, name).await;
            assert_eq!(
                (&deployment.resource, deployment.artifact.unwrap().commit.as_str()),
                (workload, "feature")
            );
        }
        for name in &environment.active_deployments {
            assert_eq!(deployment(&f, name).await.state(), pb::deployment::State::Superseded);
        }
    })
    .await;
}

#[tokio::test]
async fn a_project_with_environments_is_deleted_by_force_only() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let effects = f.driver.effects();
        let delete =
            |force: bool| pb::DeleteProjectRequest { name: HELLO.into(), force, ..Default::default() };
        for validate_only in [true, false] {
            let request = pb::DeleteProjectRequest { validate_only, ..delete(false) };
            let refusal = refused(f.projects().delete_project(f.call(request)).await);
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::FailedPrecondition, "HAS_DEPENDENTS"));
            let [condition] = &refusal.preconditions[..] else { panic!("{refusal:?}") };
            assert_eq!((condition.r#type.as_str(), condition.subject.as_str()), ("REFERENCE", DEVELOPMENT));
            assert_eq!(
                (refusal.metadata["resource"].as_str(), refusal.metadata["more"].as_str()),
                (HELLO, "false")
            );
            assert!(refusal.message.contains("`force`"), "{}", refusal.message);
        }
        // In a plan it is the same.
        let planned = |force: bool| pb::CreatePlanRequest {
            parent: ACME.into(),
            plan: Some(pb::Plan {
                intent: Some(pb::plan::Intent { request: Some(Intended::DeleteProject(delete(force))) }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let refusal = refused(f.plans().create_plan(f.call(planned(false))).await);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::FailedPrecondition, "HAS_DEPENDENTS"));
        assert_eq!(f.driver.effects(), effects, "nothing was touched");

        let plan = f.plans().create_plan(f.call(planned(true))).await.unwrap().into_inner();
        // What is gone costs nothing, and that is known.
        let cost = |text: &str| pavior_rpc::convert::to_money(text);
        assert_eq!((plan.monthly_cost_before, plan.monthly_cost_after), (cost("2.50 USD"), cost("0.00 USD")));
        let execute =
            pb::ExecutePlanRequest { name: plan.name, plan_digest: plan.digest, ..Default::default() };
        let done = f.wait(f.plans().execute_plan(f.call(execute)).await.unwrap().into_inner()).await;
        assert_eq!(problem(&done), None);
        assert_eq!(f.driver.live(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_project_without_environments_needs_no_force() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let delete = pb::DeleteEnvironmentRequest { name: DEVELOPMENT.into(), ..Default::default() };
        f.wait(f.projects().delete_environment(f.call(delete)).await.unwrap().into_inner()).await;
        let delete = pb::DeleteProjectRequest { name: HELLO.into(), ..Default::default() };
        let done = f.wait(f.projects().delete_project(f.call(delete)).await.unwrap().into_inner()).await;
        assert_eq!(problem(&done), None);
    })
    .await;
}

/// Only as many are named as an error should have.
#[tokio::test]
async fn of_many_environments_some_are_named() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        for number in 0..20 {
            let mut request = environment_request(&format!("preview-{number}"));
            request.environment.as_mut().unwrap().environment_class_id = "preview".into();
            let made = f.projects().create_environment(f.call(request)).await.unwrap().into_inner();
            f.wait(made).await;
        }
        let delete = pb::DeleteProjectRequest { name: HELLO.into(), ..Default::default() };
        let refusal = refused(f.projects().delete_project(f.call(delete)).await);
        assert_eq!((refusal.preconditions.len(), refusal.metadata["more"].as_str()), (20, "true"));
    })
    .await;
}
