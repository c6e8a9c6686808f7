//! What runs left, downloaded.

use futures::TryStreamExt as _;
use pavior_core::digest::Digest;
use pavior_driver::MAX_PIECE;
use pavior_proto::google::longrunning as lro;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::download_artifact_response::Part;
use pavior_proto::pavior::provisioning::v1::download_artifact_response::description::Format;
use pavior_testkit::db::both;
use pavior_testkit::{assert_problem, fields, user};
use tonic::{Code, Status};

use crate::fixture::*;

const RUN: &str = "organizations/acme/projects/hello/pipelines/pipeline/runs/run-1";

fn app(offset: usize) -> pb::DownloadArtifactRequest {
    let offset = i64::try_from(offset).unwrap();
    pb::DownloadArtifactRequest { name: RUN.into(), artifact_id: "app".into(), offset }
}

async fn download(f: &Fixture, request: pb::DownloadArtifactRequest) -> Result<Vec<Part>, Status> {
    let stream = f.pipelines().download_artifact(f.call(request)).await?.into_inner();
    stream.map_ok(|response| response.part.unwrap()).try_collect().await
}

#[tokio::test]
async fn an_artifact_comes_whole_or_from_where_it_broke_off() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let (whole, digest) = (artifact("main"), Digest::of(&artifact("main")));
        for offset in [0, 1, MAX_PIECE - 1, MAX_PIECE, MAX_PIECE + 1, whole.len()] {
            let parts = download(&f, app(offset)).await.unwrap();
            let Some((Part::Description(description), chunks)) = parts.split_first() else {
                panic!("{parts:?}")
            };
            assert_eq!(
                (description.format(), description.digest.as_str(), description.file_name.as_str()),
                (Format::File, digest.to_string().as_str(), "artifact")
            );
            let mut at = offset;
            for chunk in chunks {
                let Part::Chunk(chunk) = chunk else { panic!("{chunk:?}") };
                assert_eq!(usize::try_from(chunk.offset).unwrap(), at);
                assert!((1..=MAX_PIECE).contains(&chunk.data.len()));
                assert!(whole[at..].starts_with(&chunk.data));
                at += chunk.data.len();
            }
            assert_eq!(at, whole.len());
        }
    })
    .await;
}

#[tokio::test]
async fn an_artifact_that_is_not_what_the_run_made_ends_with_an_error() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let digest = Digest::of(&artifact("main"));
        f.driver.damage_artifact("acme", digest);
        let (expected, found) = (digest.to_string(), Digest::of(b"damaged").to_string());
        let told = [("expected", expected.as_str()), ("found", found.as_str())];
        // Also for whoever has all of it but the end.
        for offset in [0, 7] {
            let answer = download(&f, app(offset)).await;
            let problem = assert_problem(answer, Code::FailedPrecondition, "ARTIFACT_CHANGED", &told);
            assert!(problem.message.contains(&expected) && problem.message.contains(&found), "{problem:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn only_artifacts_of_the_run_are_given_out() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let refused = async |request: pb::DownloadArtifactRequest, field: &str, reason: &str| {
            let problem =
                assert_problem(download(&f, request).await, Code::InvalidArgument, "INVALID_FIELD", &[]);
            assert_eq!((fields(&problem), problem.violations[0].reason.as_str()), (vec![field], reason));
            problem.message
        };
        let other = pb::DownloadArtifactRequest { artifact_id: "ap".into(), ..app(0) };
        let told = refused(other, "artifact_id", "NOT_FOUND").await;
        assert!(told.ends_with("which has `app`"), "{told}");
        let none = pb::DownloadArtifactRequest { artifact_id: String::new(), ..app(0) };
        refused(none, "artifact_id", "REQUIRED").await;
        refused(pb::DownloadArtifactRequest { name: HELLO.into(), ..app(0) }, "name", "PATTERN").await;
        refused(pb::DownloadArtifactRequest { offset: -1, ..app(0) }, "offset", "OUT_OF_RANGE").await;
        let told = refused(app(100_001), "offset", "OUT_OF_RANGE").await;
        assert!(told.ends_with("has 100000 bytes"), "{told}");

        let name = format!("{HELLO}/pipelines/pipeline/runs/run-9");
        let missing = pb::DownloadArtifactRequest { name, ..app(0) };
        assert_problem(download(&f, missing).await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        let foreign = f.by(&user("umbrella", "mallory"), app(0));
        let answer = f.pipelines().download_artifact(foreign).await;
        assert_problem(answer, Code::PermissionDenied, "ACCESS_DENIED", &[]);
    })
    .await;
}

/// What a change needs is looked for before anything happens.
#[tokio::test]
async fn an_artifact_that_is_kept_no_more_is_missed_by_the_plan() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let workload = format!("{HELLO}/environments/development/resources/workload");
        f.driver.vanish(&workload);
        f.driver.lose_artifact("acme", Digest::of(&artifact("main")));
        let environment =
            pb::Environment { name: format!("{HELLO}/environments/development"), ..Default::default() };
        let update = pb::UpdateEnvironmentRequest {
            environment: Some(environment),
            validate_only: true,
            ..Default::default()
        };
        let deploy = pb::CreateDeploymentRequest {
            parent: format!("{HELLO}/environments/development"),
            deployment: Some(pb::Deployment::default()),
            ..Default::default()
        };
        let missed = |answer: Result<tonic::Response<lro::Operation>, Status>, resource: &str| {
            let problem = assert_problem(answer, Code::FailedPrecondition, "INVALID_STATE", &[]);
            assert_eq!(problem.preconditions[0].subject, resource);
            assert!(problem.message.contains("is kept no more"), "{}", problem.message);
        };
        missed(f.projects().update_environment(f.call(update.clone())).await, &workload);
        missed(f.deployments().create_deployment(f.call(deploy)).await, &workload);
        let staging = f.projects().create_environment(f.call(environment_request("staging"))).await;
        missed(staging, &format!("{HELLO}/environments/staging/resources/workload"));
        f.driver.keep_artifact("acme", artifact("main"));
        f.projects().update_environment(f.call(update)).await.unwrap();
    })
    .await;
}
