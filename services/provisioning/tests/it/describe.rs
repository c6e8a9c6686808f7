//! What is said about a project, changed without an operation.

use std::collections::HashMap;

use pavior_driver::testing::Presence;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_testkit::db::both;
use pavior_testkit::{assert_problem, fields};
use prost_types::FieldMask;
use tonic::{Code, Status};

use crate::fixture::*;

async fn update(f: &Fixture, project: pb::Project, paths: &[&str]) -> Result<pb::Project, Status> {
    let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
    let update_mask = (!paths.is_empty()).then_some(FieldMask { paths });
    let project = Some(pb::Project { name: HELLO.into(), ..project });
    let request = pb::UpdateProjectRequest { project, update_mask, ..Default::default() };
    f.projects().update_project(f.call(request)).await.map(tonic::Response::into_inner)
}

async fn project(f: &Fixture) -> pb::Project {
    let get = pb::GetProjectRequest { name: HELLO.into(), ..Default::default() };
    f.projects().get_project(f.call(get)).await.unwrap().into_inner()
}

fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn labels_are_changed_one_by_one_and_the_rest_stays() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let before = project(&f).await;
        let patch = pb::Project {
            labels: labels(&[("tier", "2"), ("a.b/c", "x"), ("left out", "x")]).into_iter().collect(),
            ..Default::default()
        };
        let after = update(&f, patch, &["labels.tier", "labels.team", "labels.`a.b/c`"]).await.unwrap();
        assert_eq!(after.labels, labels(&[("tier", "2"), ("a.b/c", "x")]).into_iter().collect());
        assert_eq!(
            pb::Project {
                labels: before.labels.clone(),
                etag: before.etag.clone(),
                update_time: before.update_time,
                ..after.clone()
            },
            before
        );
        // Whoever read the project may send all of it back.
        let named = pb::Project { display_name: "Hello".into(), ..after.clone() };
        let shown = update(&f, named, &[]).await.unwrap();
        assert_eq!((shown.display_name.as_str(), &shown.labels), ("Hello", &after.labels));
        let stale = pb::Project { display_name: "Other".into(), etag: after.etag, ..Default::default() };
        let told = [("currentEtag", shown.etag.as_str())];
        assert_problem(update(&f, stale, &[]).await, Code::Aborted, "ETAG_MISMATCH", &told);
    })
    .await;
}

#[tokio::test]
async fn what_a_project_is_made_of_is_not_changed_and_it_is_said_what_is_to_be_done() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let before = project(&f).await;
        let refused = |answer, field: &str| {
            let problem = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
            let [violation] = problem.violations.as_slice() else { panic!("{problem:?}") };
            assert_eq!((violation.field.as_str(), violation.reason.as_str()), (field, "IMMUTABLE"));
            violation.description.clone()
        };
        // Named, also with the value that it has.
        for path in ["owner", "template_version", "parameters", "parameters.size"] {
            let told = refused(update(&f, before.clone(), &[path]).await, "update_mask");
            assert!(told.starts_with(&format!("`{path}` ")) && told.contains("CreateProject"), "{told}");
        }
        let told = refused(update(&f, before.clone(), &["parameters"]).await, "update_mask");
        assert!(told.contains("UpdateEnvironment"), "{told}");
        // Not named, and another value.
        let owner = pb::Project { owner: format!("{ACME}/groups/other"), ..Default::default() };
        refused(update(&f, owner, &[]).await, "project.owner");
        let template_version = before.template_version.replace("1.0.0", "9.9.9");
        assert_ne!(template_version, before.template_version);
        let other = pb::Project { template_version, ..Default::default() };
        refused(update(&f, other, &[]).await, "project.template_version");
        let reserved = pb::Project {
            labels: labels(&[("pavior.dev/x", "y")]).into_iter().collect(),
            ..Default::default()
        };
        let answer = update(&f, reserved, &[]).await;
        let problem = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
        assert_eq!(fields(&problem), ["project.labels.pavior.dev/x"]);
        assert_eq!(project(&f).await, before);
    })
    .await;
}

#[tokio::test]
async fn a_project_that_an_operation_holds_is_not_changed() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        f.driver.set_presence(Presence::Refuses);
        let delete = pb::DeleteProjectRequest { name: HELLO.into(), force: true, ..Default::default() };
        let deletion = f.projects().delete_project(f.call(delete)).await.unwrap().into_inner();
        let patch = pb::Project { display_name: "late".into(), ..Default::default() };
        let told = [("operation", deletion.name.as_str())];
        assert_problem(update(&f, patch, &[]).await, Code::Aborted, "RESOURCE_BUSY", &told);
    })
    .await;
}
