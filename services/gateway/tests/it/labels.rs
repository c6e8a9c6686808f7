//! Policy is asked about labels as they are and as they would be.

use std::collections::HashMap;

use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_proto::pavior::policy::internal::v1::DecideRequest;
use pavior_proto::pavior::policy::v1::PolicyType;
use pavior_proto::pavior::provisioning::v1::project_service_client::ProjectServiceClient;
use pavior_proto::pavior::provisioning::v1::{CreateProjectRequest, Project, UpdateProjectRequest};

use pavior_testkit::assert_problem;
use tonic::Code;

use crate::harness::{DECIDE, FACTS, World};

const PROJECT: &str = "organizations/acme/projects/shop";

fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn an_update_is_decided_on_both() {
    let world = World::new().await;
    let before = labels(&[("tier", "1"), ("team", "a")]);
    let known = before.clone();
    world.fake("provisioning").on(FACTS, move |request: GetResourceFactsRequest| {
        let labels = known.clone();
        Ok(ResourceFacts { name: request.name, exists: true, labels, ..Default::default() })
    });
    world
        .fake("provisioning")
        .on("/pavior.provisioning.v1.ProjectService/UpdateProject", |_: UpdateProjectRequest| {
            Ok(Project::default())
        });
    let mut client = ProjectServiceClient::new(world.caller("alice", "acme").await);
    for (given, paths, after) in [
        (&[("tier", "2")][..], &["labels.tier"][..], Some(labels(&[("tier", "2"), ("team", "a")]))),
        (&[], &["labels.tier"], Some(labels(&[("team", "a")]))),
        (&[("tier", "2")], &[], Some(labels(&[("tier", "2")]))),
        (&[], &["*"], Some(labels(&[]))),
        (&[("tier", "2")], &["display_name"], None),
        (&[], &[], None),
    ] {
        let project = Project { name: PROJECT.to_owned(), labels: labels(given), ..Default::default() };
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let update_mask = Some(prost_types::FieldMask { paths });
        let request = UpdateProjectRequest { project: Some(project), update_mask, ..Default::default() };
        client.update_project(request).await.unwrap();
        let asked: DecideRequest = world.fake("policy").calls(DECIDE).pop().unwrap().decode();
        assert_eq!(asked.resource.unwrap().labels, before);
        let context = asked.context.unwrap();
        assert_eq!(
            (context.changes_labels, context.labels),
            (after.is_some(), after.unwrap_or(before.clone()))
        );
    }
}

/// Policy is not asked about what it could not be asked about, and the caller is told about the field.
#[tokio::test]
async fn labels_that_cannot_be_are_refused_by_their_field() {
    let world = World::new().await;
    world.fake("provisioning").on(FACTS, |request: GetResourceFactsRequest| {
        Ok(ResourceFacts { name: request.name, exists: true, ..Default::default() })
    });
    let mut client = ProjectServiceClient::new(world.caller("alice", "acme").await);
    let long = "v".repeat(257);
    for (key, value) in
        [("a\u{0}b", "1"), ("", "1"), ("tier", "a\u{1b}"), ("tier", "a\u{202e}b"), ("tier", long.as_str())]
    {
        let project =
            Project { name: PROJECT.to_owned(), labels: labels(&[(key, value)]), ..Default::default() };
        let update_mask = Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] });
        let request = UpdateProjectRequest { project: Some(project), update_mask, ..Default::default() };
        let refused = client.update_project(request).await.unwrap_err();
        let problem = pavior_rpc::problem::from_status(&refused);
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{key:?}: {problem:?}");
        let fields: Vec<_> = problem.violations.iter().map(|violation| violation.field.as_str()).collect();
        assert!(fields.iter().all(|field| field.starts_with("project.labels")), "{key:?}: {fields:?}");
        assert!(!fields.is_empty(), "{key:?}");
    }
    assert!(world.fake("policy").calls(DECIDE).is_empty());
}

/// Nobody is asked whether an update is allowed that says two things.
#[tokio::test]
async fn everything_and_something_beside_it_is_no_mask() {
    let world = World::new().await;
    world.decide(|_| Ok(crate::governance::deny(&[("no-labels", PolicyType::Access, "not today")])));
    world.fake("provisioning").on(FACTS, |request: GetResourceFactsRequest| {
        Ok(ResourceFacts { name: request.name, exists: true, ..Default::default() })
    });
    let mut client = ProjectServiceClient::new(world.caller("alice", "acme").await);
    for paths in [&["*", "labels"][..], &["labels", "*"], &["*", "*"]] {
        let project = Project { name: PROJECT.to_owned(), ..Default::default() };
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let update_mask = Some(prost_types::FieldMask { paths });
        let request = UpdateProjectRequest { project: Some(project), update_mask, ..Default::default() };
        let refused = client.update_project(request).await.unwrap_err();
        let problem = assert_problem(Err::<(), _>(refused), Code::InvalidArgument, "INVALID_FIELD", &[]);
        assert_eq!(problem.violations[0].field, "update_mask");
    }
    assert!(world.fake("policy").calls(DECIDE).is_empty());
}

#[tokio::test]
async fn what_is_made_comes_with_its_labels() {
    let world = World::new().await;
    world.fake("provisioning").on(FACTS, |request: GetResourceFactsRequest| {
        Ok(ResourceFacts { name: request.name, exists: true, ..Default::default() })
    });
    world
        .fake("provisioning")
        .on("/pavior.provisioning.v1.ProjectService/CreateProject", |_: CreateProjectRequest| {
            Ok(pavior_proto::google::longrunning::Operation::default())
        });
    let request = CreateProjectRequest {
        parent: "organizations/acme".to_owned(),
        project: Some(Project { labels: labels(&[("tier", "1")]), ..Default::default() }),
        ..Default::default()
    };
    let mut client = ProjectServiceClient::new(world.caller("alice", "acme").await);
    client.create_project(request).await.unwrap();
    let asked: DecideRequest = world.fake("policy").calls(DECIDE).remove(0).decode();
    let context = asked.context.unwrap();
    assert_eq!((context.changes_labels, context.labels), (false, labels(&[("tier", "1")])));
}
