//! A step that fails: what was made before it is undone in reverse order, visibly, and nothing is left.

use anyhow::{Context as _, Result, ensure};
use pavior::cli::apply::Source;
use pavior::cli::progress;
use pavior_proto::google::longrunning::operation::Result as Outcome;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_tests::Embedded;
use pb::watch_operation_response::Event;
use tonic::Code;

const BROKEN: &str = r#"
template: broken
version: 1.0.0
project:
  repository:
    type: git-repository
    inputs: { skeleton: web-service/python, parameters: { name: "${{ project.id }}" } }
  pipeline:
    type: ci-pipeline
    inputs:
      repository: "${{ resources.repository.name }}"
      steps: [{ name: test, run: "true" }]
environments:
  development:
    create: with_project
    resources:
      database: { type: sql-database, inputs: {} }
    workload:
      inputs:
        command: ["/bin/sh", "-c", "exit 3"]
        variables:
          DATABASE_URL: "${{ resources.database.url }}"
          REPOSITORY: "${{ project.resources.repository.url }}"
        health: { path: /healthz, timeout: 2s }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_fourth_step_is_undone_in_reverse_order() -> Result<()> {
    let system = Embedded::start().await?;
    system.apply(&[Source { origin: "broken".to_owned(), text: BROKEN.to_owned() }]).await?;
    let alice = system.person("alice")?;
    let mut request = alice.project("doomed");
    let project = request.project.as_mut().context("a project")?;
    project.template_version = "organizations/acme/templates/broken/versions/stable".to_owned();
    project.parameters = None;
    let operation = alice.projects().create_project(request).await?.into_inner();
    let operation = alice.finish(&operation).await?;
    let Some(Outcome::Error(error)) = &operation.result else {
        anyhow::bail!("the operation succeeded");
    };
    ensure!(error.message.contains("workload"), "the step is blamed: {}", error.message);
    let metadata = progress::metadata(&operation)?;
    ensure!(metadata.state() == pb::operation_metadata::State::Compensated, "{:?}", metadata.state());

    let request = pb::WatchOperationRequest { name: operation.name.clone(), start: None };
    let mut stream = alice.operation_service().watch_operation(request).await?.into_inner();
    let (mut done, mut undone) = (Vec::new(), Vec::new());
    while let Some(response) = stream.message().await? {
        if let Some(Event::Step(step)) = response.event {
            match step.state() {
                pb::operation_step::State::Succeeded => done.push(step.step_id),
                pb::operation_step::State::Undone => undone.push(step.step_id),
                _ => {}
            }
        }
    }
    ensure!(done.len() == 3, "three steps were done before the fourth failed: {done:?}");
    let at = |step: &str| undone.iter().position(|id| id.contains(step));
    ensure!(at("pipeline") < at("repository") && at("database").is_some(), "undone as {undone:?}");

    let name = "organizations/acme/projects/doomed".to_owned();
    let status =
        alice.projects().get_project(pb::GetProjectRequest { name, ..Default::default() }).await.unwrap_err();
    ensure!(status.code() == Code::NotFound, "{status}");
    let platform = pavior::serve::drivers_directory(system.data());
    for folder in ["repositories/acme", "databases/acme"] {
        let left = walkdir(&platform.join(folder));
        ensure!(left.is_empty(), "left behind: {left:?}");
    }
    system.stop().await
}

fn walkdir(path: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .flat_map(|entry| if entry.path().is_dir() { walkdir(&entry.path()) } else { vec![entry.path()] })
        .collect()
}
