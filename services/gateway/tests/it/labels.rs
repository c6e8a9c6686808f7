//! Policy is asked about labels as they are and as they would be.

use std::collections::HashMap;

use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_proto::pavior::policy::internal::v1::DecideRequest;
use pavior_proto::pavior::provisioning::v1::project_service_client::ProjectServiceClient;
use pavior_proto::pavior::provisioning::v1::{CreateProjectRequest, Project, UpdateProjectRequest};

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
