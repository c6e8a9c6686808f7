//! What every resource of provisioning must keep to.

use futures::future::{BoxFuture, LocalBoxFuture};
use pavior_core::audit::AuditEvent;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::shape::Request as _;
use pavior_store::outbox;
use pavior_testkit::conformance::{self, Existing, Subject};
use pavior_testkit::{db, dynamic, user};
use serde_json::{Value as Json, json};

use crate::fixture::*;

/// An id that nothing has.
const MISSING: &str = "01900000-0000-7000-8000-000000000000";

/// Two of everything.
async fn fill(f: &Fixture) {
    f.project().await;
    let mut second = hello();
    second.project_id = "second".into();
    let second = f.projects().create_project(f.call(second)).await.unwrap().into_inner();
    assert_eq!(problem(&f.wait(second).await), None);
    let staging = environment_request("staging");
    let staging = f.projects().create_environment(f.call(staging)).await.unwrap().into_inner();
    assert_eq!(problem(&f.wait(staging).await), None);
    let name = format!("{HELLO}/pipelines/pipeline");
    let run = pb::RunPipelineRequest { name: name.clone(), ..Default::default() };
    let run = f.pipelines().run_pipeline(f.call(run)).await.unwrap().into_inner();
    assert_eq!(problem(&f.wait(run).await), None);
    let source = pb::deployment::Source::SourceRun(format!("{name}/runs/run-2"));
    let deploy = pb::CreateDeploymentRequest {
        parent: format!("{HELLO}/environments/development"),
        deployment: Some(pb::Deployment { source: Some(source), ..Default::default() }),
        ..Default::default()
    };
    let deployed = f.deployments().create_deployment(f.call(deploy)).await.unwrap().into_inner();
    assert_eq!(problem(&f.wait(deployed).await), None);
}

/// One more of what stands in the lists of the suite.
async fn insert(f: &Fixture, message: &str) {
    let run = pb::RunPipelineRequest { name: format!("{HELLO}/pipelines/pipeline"), ..Default::default() };
    let id = format!("more-{}", message.to_ascii_lowercase());
    let begun = match message {
        "Project" | "Operation" => {
            f.projects().create_project(f.call(pb::CreateProjectRequest { project_id: id, ..hello() })).await
        }
        "Environment" | "Resource" => {
            let mut request =
                pb::CreateEnvironmentRequest { environment_id: id, ..environment_request("staging") };
            request.environment.as_mut().unwrap().environment_class_id = "staging".to_owned();
            f.projects().create_environment(f.call(request)).await
        }
        "Run" => f.pipelines().run_pipeline(f.call(run)).await,
        "Deployment" => {
            // What runs already is not deployed again: another commit makes another artifact.
            let run = pb::RunPipelineRequest { revision: "more".to_owned(), ..run };
            let run = f.pipelines().run_pipeline(f.call(run)).await.unwrap().into_inner();
            assert_eq!(problem(&f.wait(run).await), None);
            let request = pb::CreateDeploymentRequest {
                parent: format!("{HELLO}/environments/development"),
                deployment: Some(pb::Deployment::default()),
                ..Default::default()
            };
            f.deployments().create_deployment(f.call(request)).await
        }
        "Plan" => {
            let intent = pb::plan::Intent { request: Some(pb::plan::intent::Request::RunPipeline(run)) };
            let plan = Some(pb::Plan { intent: Some(intent), ..Default::default() });
            let request = pb::CreatePlanRequest { parent: ACME.to_owned(), plan, ..Default::default() };
            return drop(f.plans().create_plan(f.call(request)).await.unwrap());
        }
        other => panic!("{other}"),
    };
    assert_eq!(problem(&f.wait(begun.unwrap().into_inner()).await), None);
}

/// What was recorded of updates that are no operations.
async fn updates(f: &Fixture) -> Vec<AuditEvent> {
    let rows = outbox::pending(&f.store, pavior_provisioning::ROLE, 1_000, usize::MAX).await.unwrap();
    let events = rows.into_iter().map(|row| row.event);
    events.filter(|event| event.action == pb::UpdateProjectRequest::ACTION).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_resource_keeps_to_what_all_resources_do() {
    db::both(|db| async {
        let f = Fixture::new(db).await;
        fill(&f).await;
        let ask = |organization: &'static str| {
            let f = &f;
            move |method: dynamic::MethodDescriptor, json: Json| {
                let (transport, request) = (f.transport(), f.by(&user(organization, "alice"), json));
                Box::pin(async move { dynamic::call(transport, &method, request).await })
                    as BoxFuture<'_, Result<Json, tonic::Status>>
            }
        };
        let insider = ask("acme");
        let mut existing = Vec::new();
        let pipeline = format!("{HELLO}/pipelines/pipeline");
        let development = format!("{HELLO}/environments/development");
        let in_environments = format!("{HELLO}/environments/-");
        for (message, list, items, parent, missing) in [
            ("Project", "ListProjects", "projects", ACME, "nothing"),
            ("Environment", "ListEnvironments", "environments", HELLO, "nothing"),
            ("Resource", "ListResources", "resources", &in_environments, "nothing"),
            ("Pipeline", "ListPipelines", "pipelines", HELLO, "nothing"),
            ("Run", "ListRuns", "runs", &pipeline, "run-99"),
            ("Deployment", "ListDeployments", "deployments", &development, "deployment-99"),
            ("Plan", "ListPlans", "plans", ACME, MISSING),
            ("Operation", "ListOperations", "operations", ACME, MISSING),
        ] {
            let operations = || dynamic::method("google.longrunning.Operations/ListOperations");
            let (method, field) = match message {
                "Operation" => (operations(), "name"),
                _ => (dynamic::method_of(pavior_provisioning::ROLE, list), "parent"),
            };
            let page = insider(method, json!({ field: parent })).await.unwrap();
            let found = page[items].as_array().cloned().unwrap_or_default();
            let names: Vec<_> = found.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
            assert!(!names.is_empty(), "{message}");
            let missing = format!("{}/{missing}", names[0].rsplit_once('/').unwrap().0);
            existing.push(Existing { message, parent: parent.to_owned(), names, missing });
        }
        // What is recorded from now on stays where it can be read.
        f.peers.audit.set_down(true);
        let audited = || Box::pin(updates(&f)) as LocalBoxFuture<'_, _>;
        let insert = |message: &'static str| Box::pin(insert(&f, message)) as LocalBoxFuture<'_, _>;
        let (ask, outsider, audited) = (&insider, &ask("umbrella"), &audited);
        let role = pavior_provisioning::ROLE;
        let subject =
            Subject { role, samples: Vec::new(), existing, ask, outsider, insert: &insert, audited };
        conformance::check(&subject).await;
    })
    .await;
}
