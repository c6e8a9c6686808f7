//! The same request id gives the first answer: at the same moment, while the first call runs, and after everything that
//! it was about is gone. For every change that takes one.

use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_rpc::convert::to_struct;
use pavior_testkit::db::both;
use serde_json::json;
use tonic::Code;

use crate::fixture::*;

fn id(number: u8, capitals: bool) -> String {
    let id = format!("6f2d1f44-5f10-4a3a-9d7a-0a5a4e3c2b{number:02x}");
    if capitals { id.to_ascii_uppercase() } else { id }
}

/// Makes the same call several times at the same moment, waits for its end, and makes it once more.
macro_rules! repeated {
    ($f:ident, $answers:ident, $service:ident.$method:ident, $request:expr) => {{
        let number = u8::try_from($answers.len()).unwrap();
        let request = |capitals: bool| {
            let mut request = $request;
            request.request_id = id(number, capitals);
            request
        };
        let calls: Vec<_> = (0..5).map(|n| ($f.$service(), $f.call(request(n % 2 == 0)))).collect();
        let answers: Vec<Result<_, tonic::Status>> = futures::future::join_all(
            calls.into_iter().map(|(mut client, call)| async move { client.$method(call).await }),
        )
        .await;
        let answers: Vec<Operation> =
            answers.into_iter().map(|answer| answer.unwrap().into_inner()).collect();
        for answer in &answers {
            assert_eq!(answer.name, answers[0].name, stringify!($method));
        }
        // To plan the same under the same id is no answer to it, and forgets none.
        let mut plan = request(false);
        plan.validate_only = true;
        let planned = $f.$service().$method($f.call(plan)).await;
        match planned {
            Ok(plan) => assert_ne!(plan.into_inner().name, answers[0].name),
            // The first call works on it, or has made it or taken it away.
            Err(status) => assert!(
                matches!(status.code(), Code::Aborted | Code::AlreadyExists | Code::NotFound),
                "{}: {status:?}",
                stringify!($method)
            ),
        }
        let done = $f.wait(answers[0].clone()).await;
        assert_eq!(problem(&done), None, stringify!($method));
        let again = $f.$service().$method($f.call(request(true))).await.unwrap().into_inner();
        assert_eq!(again.name, done.name, stringify!($method));
        $answers.push(done.name);
    }};
}

/// Makes the call once more, now that everything is gone, and once with something else.
macro_rules! answered {
    ($f:ident, $answers:ident, $number:expr, $service:ident.$method:ident, $request:expr, $other:expr) => {{
        let number: u8 = $number;
        let mut request = $request;
        request.request_id = id(number, true);
        let again = $f.$service().$method($f.call(request)).await.unwrap().into_inner();
        assert_eq!(again.name, $answers[usize::from(number)], stringify!($method));
        let mut other = $other;
        other.request_id = id(number, false);
        let refused = refused($f.$service().$method($f.call(other)).await);
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::InvalidArgument, "REQUEST_ID_REUSED"),
            stringify!($method)
        );
    }};
}

fn development() -> String {
    format!("{HELLO}/environments/development")
}

fn update(size: &str) -> pb::UpdateEnvironmentRequest {
    pb::UpdateEnvironmentRequest {
        environment: Some(pb::Environment {
            name: development(),
            parameters: to_struct(&json!({ "size": size })).ok(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn run(revision: &str) -> pb::RunPipelineRequest {
    let name = format!("{HELLO}/pipelines/pipeline");
    pb::RunPipelineRequest { name, revision: revision.into(), ..Default::default() }
}

fn deploy(run: &str) -> pb::CreateDeploymentRequest {
    pb::CreateDeploymentRequest {
        parent: development(),
        deployment: Some(pb::Deployment {
            source: Some(pb::deployment::Source::SourceRun(format!("{HELLO}/pipelines/pipeline/runs/{run}"))),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn promote(to: &str) -> pb::PromoteDeploymentRequest {
    pb::PromoteDeploymentRequest {
        name: format!("{}/deployments/deployment-1", development()),
        environment: format!("{HELLO}/environments/{to}"),
        ..Default::default()
    }
}

fn delete_environment(etag: &str) -> pb::DeleteEnvironmentRequest {
    let name = format!("{HELLO}/environments/staging");
    pb::DeleteEnvironmentRequest { name, etag: etag.into(), ..Default::default() }
}

fn delete_project(etag: &str) -> pb::DeleteProjectRequest {
    pb::DeleteProjectRequest { name: HELLO.into(), etag: etag.into(), force: true, ..Default::default() }
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_whatever_has_become_of_its_target() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let mut names = Vec::new();
        repeated!(f, names, projects.create_project, hello());
        repeated!(f, names, projects.create_environment, environment_request("staging"));
        repeated!(f, names, projects.update_environment, update("large"));
        repeated!(f, names, pipelines.run_pipeline, run("feature"));
        repeated!(f, names, deployments.create_deployment, deploy("run-2"));
        repeated!(f, names, deployments.promote_deployment, promote("staging"));
        repeated!(f, names, projects.delete_environment, delete_environment(""));
        repeated!(f, names, projects.delete_project, delete_project(""));
        assert_eq!(f.driver.live(), Vec::<String>::new());

        let mut other = hello();
        other.project.as_mut().unwrap().display_name = "another".into();
        answered!(f, names, 0, projects.create_project, hello(), other);
        let (first, other) = (environment_request("staging"), environment_request("preview"));
        answered!(f, names, 1, projects.create_environment, first, other);
        answered!(f, names, 2, projects.update_environment, update("large"), update("small"));
        answered!(f, names, 3, pipelines.run_pipeline, run("feature"), run("main"));
        answered!(f, names, 4, deployments.create_deployment, deploy("run-2"), deploy("run-1"));
        answered!(f, names, 5, deployments.promote_deployment, promote("staging"), promote("preview"));
        answered!(
            f,
            names,
            6,
            projects.delete_environment,
            delete_environment(""),
            delete_environment("\"x\"")
        );
        answered!(f, names, 7, projects.delete_project, delete_project(""), delete_project("\"x\""));
        // None of it was done a second time.
        assert_eq!(f.driver.live(), Vec::<String>::new());
        let list = pb::ListProjectsRequest { parent: ACME.into(), ..Default::default() };
        assert!(f.projects().list_projects(f.call(list)).await.unwrap().into_inner().projects.is_empty());
    })
    .await;
}
