//! Guardrails hold for a plan as for its parts, and what was approved is what is carried out.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use pavior::cli::apply::Source;
use pavior::cli::client::request_id;
use pavior::cli::progress;
use pavior_proto::google::longrunning::Operation;
use pavior_proto::google::longrunning::operation::Result as Outcome;
use pavior_proto::pavior::policy::v1 as policy;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_tests::{Embedded, Person, details};
use pb::operation_metadata::State;
use tonic::Code;

/// Its production comes with the project.
const EAGER: &str = r#"
template: eager
version: 1.0.0
project:
  repository:
    type: git-repository
    inputs: { skeleton: web-service/python, parameters: { name: "${{ project.id }}" } }
environments:
  production:
    create: with_project
    resources:
      database: { type: sql-database, inputs: {} }
"#;

const SHOP: &str = "organizations/acme/projects/shop";

async fn waiting(person: &Person, operation: &Operation) -> Result<pb::OperationMetadata> {
    let waits = |operation: &Operation| {
        progress::rests(operation)
            || progress::metadata(operation).is_ok_and(|m| m.state() == State::AwaitingApproval)
    };
    let operation = person.until(&operation.name, waits).await?;
    let metadata = progress::metadata(&operation)?;
    ensure!(metadata.state() == State::AwaitingApproval, "{:?}", metadata.state());
    Ok(metadata)
}

async fn approve(person: &Person, metadata: &pb::OperationMetadata) -> Result<()> {
    let request = policy::ApproveApprovalRequest {
        name: metadata.approval.clone(),
        reason: "looks good".to_owned(),
        plan_digest: metadata.plan_digest.clone(),
        request_id: request_id(),
    };
    let approved = person.approvals().approve_approval(request).await?.into_inner();
    ensure!(approved.state() == policy::approval::State::Approved, "{approved:?}");
    Ok(())
}

async fn production(alice: &Person) -> Result<Operation> {
    Ok(alice.projects().create_environment(alice.environment("shop", "production")).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn production_is_not_deleted_with_its_project_nor_made_with_it() -> Result<()> {
    let system = Embedded::start().await?;
    let (alice, pia) = (system.person("alice")?, system.person("pia")?);
    alice.create_project("shop").await?;
    let operation = production(&alice).await?;
    approve(&pia, &waiting(&alice, &operation).await?).await?;
    progress::conclude(&alice.finish(&operation).await?)?;

    let delete = || pb::DeleteProjectRequest {
        name: SHOP.to_owned(),
        force: true,
        request_id: request_id(),
        ..Default::default()
    };
    let status = alice.projects().delete_project(delete()).await.unwrap_err();
    let (reason, errors) = details(&status);
    ensure!((status.code(), reason.as_str()) == (Code::FailedPrecondition, "GUARDRAIL_DENIED"), "{status}");
    let rules = errors.precondition_failure().context("no rule is named")?;
    ensure!(rules.violations.iter().any(|v| v.subject == "production-is-kept"), "{rules:?}");
    ensure!(alice.page("shop", "production").await?.contains("environment: production"), "it answers");
    let operation = pia.projects().delete_project(delete()).await?.into_inner();
    progress::conclude(&pia.finish(&operation).await?)?;

    system.apply(&[Source { origin: "eager".to_owned(), text: EAGER.to_owned() }]).await?;
    let mut request = alice.project("eager");
    let project = request.project.as_mut().context("a project")?;
    project.template_version = "organizations/acme/templates/eager/versions/stable".to_owned();
    project.parameters = None;
    let operation = alice.projects().create_project(request).await?.into_inner();
    let metadata = waiting(&alice, &operation).await?;
    ensure!(files(&repositories(&system), "eager.git").is_empty(), "nothing is made before it is approved");
    approve(&pia, &metadata).await?;
    progress::conclude(&alice.finish(&operation).await?)?;
    ensure!(!files(&repositories(&system), "eager.git").is_empty(), "now it is");
    system.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_that_changed_after_its_approval_is_not_deployed() -> Result<()> {
    let system = Embedded::start().await?;
    let (alice, pia) = (system.person("alice")?, system.person("pia")?);
    alice.create_project("shop").await?;
    let operation = production(&alice).await?;
    let metadata = waiting(&alice, &operation).await?;
    let plan = pb::GetPlanRequest { name: metadata.plan.clone(), ..Default::default() };
    let plan = alice.plans().get_plan(plan).await?.into_inner();
    let planned = plan.changes.iter().find(|change| !change.artifact_digest.is_empty());
    let planned = planned.context("the plan names no artifact")?.artifact_digest.clone();

    let artifacts = pavior::serve::drivers_directory(system.data()).join("artifacts");
    let stored = files(&artifacts, "app.py").pop().context("no artifact is stored")?;
    std::fs::set_permissions(&stored, std::fs::Permissions::from_mode(0o644))?;
    std::fs::write(&stored, "print('something that nobody approved')\n")?;
    approve(&pia, &metadata).await?;
    let operation = alice.finish(&operation).await?;
    let Some(Outcome::Error(error)) = &operation.result else {
        anyhow::bail!("the operation succeeded");
    };
    let decoded = pavior_rpc::problem::from_rpc_status(error);
    ensure!(decoded.reason == "ARTIFACT_CHANGED", "{decoded:?}");
    ensure!(decoded.metadata.get("expected") == Some(&planned), "{planned}: {decoded:?}");
    let found = decoded.metadata.get("found").context("what was found is said")?;
    ensure!(found.starts_with("sha256:") && *found != planned, "{decoded:?}");
    let name = format!("{SHOP}/environments/production");
    let status = alice
        .projects()
        .get_environment(pb::GetEnvironmentRequest { name, ..Default::default() })
        .await
        .unwrap_err();
    ensure!(status.code() == Code::NotFound, "{status}");
    system.stop().await
}

fn repositories(system: &Embedded) -> PathBuf {
    pavior::serve::drivers_directory(system.data()).join("repositories/acme")
}

/// Everything of this name below a folder.
fn files(path: &Path, name: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let all = entries.filter_map(Result::ok).map(|entry| entry.path());
    let found = all.flat_map(|path| match path.file_name().is_some_and(|found| found == name) {
        true => vec![path],
        false if path.is_dir() => files(&path, name),
        false => Vec::new(),
    });
    found.collect()
}
