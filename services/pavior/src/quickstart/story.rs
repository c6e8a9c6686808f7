//! What happens in the quickstart, in order. Every call goes through the gateway as the person named.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::policy::v1 as policy;
use pavior_proto::pavior::provisioning::v1 as pb;
use tonic::Code;

use super::Personas;
use super::narrator::Narrator;
use crate::cli::client::{Client, request_id};
use crate::cli::progress::{self, Until};
use crate::cli::requests::running_deployment;
use crate::cli::{audit, failure, output};
use crate::serve::drivers_directory;

const PROJECT: &str = "organizations/acme/projects/hello";
const OLD_GREETING: &str = "Hello from a paved road";
const NEW_GREETING: &str = "Hello again, a little later";

/// Tells the whole story.
pub(crate) async fn run(
    narrator: &mut Narrator,
    people: &Personas,
    directory: &Path,
    language: &str,
) -> anyhow::Result<()> {
    plan(narrator, &people.alice, language).await?;
    create_project(narrator, &people.alice, language).await?;
    let page = fetch_environment(narrator, &people.alice, "development").await?;
    ensure!(page.contains(OLD_GREETING) && page.contains("visits: 1"), "the page is not what was expected");
    change(narrator, &people.alice, directory).await?;
    promote(narrator, &people.alice).await?;
    production(narrator, people).await?;
    denied(narrator, people).await
}

async fn plan(narrator: &mut Narrator, alice: &Client, language: &str) -> anyhow::Result<()> {
    narrator.chapter("alice, a developer, asks what a new project would be: the plan");
    let operation = alice.projects().create_project(project(language, true)?).await?.into_inner();
    let plan = progress::metadata(&operation)?.validated_plan.context("the answer has no plan")?;
    for change in &plan.changes {
        let after = if change.depends_on_step_ids.is_empty() {
            String::new()
        } else {
            format!(" after {}", change.depends_on_step_ids.join(", "))
        };
        let action = output::state(change.action().as_str_name(), "ACTION_");
        narrator.fact(&action, &format!("{} ({}){after}", change.step_id, change.driver_id));
    }
    let decision = plan.decision.clone().unwrap_or_default();
    narrator.fact("policy", &output::state(decision.effect().as_str_name(), "EFFECT_"));
    narrator.fact(
        "cost a month",
        &output::cost(plan.monthly_cost_before.as_ref(), plan.monthly_cost_after.as_ref()),
    );
    narrator.fact("digest", &plan.digest);
    Ok(())
}

fn project(language: &str, validate_only: bool) -> anyhow::Result<pb::CreateProjectRequest> {
    let parameters = serde_json::json!({ "language": language });
    Ok(pb::CreateProjectRequest {
        parent: "organizations/acme".to_owned(),
        project_id: "hello".to_owned(),
        project: Some(pb::Project {
            display_name: "Hello".to_owned(),
            owner: "organizations/acme/groups/storefront".to_owned(),
            template_version: "organizations/acme/templates/web-service/versions/stable".to_owned(),
            parameters: Some(pavior_rpc::convert::to_struct(&parameters)?),
            ..Default::default()
        }),
        request_id: request_id(),
        validate_only,
        ..Default::default()
    })
}

async fn create_project(narrator: &mut Narrator, alice: &Client, language: &str) -> anyhow::Result<()> {
    narrator.chapter("alice creates it: repository, pipeline, database, running service, in one call");
    let operation = alice.projects().create_project(project(language, false)?).await?.into_inner();
    finish(narrator, alice, &operation).await?;
    Ok(())
}

/// Follows an operation until it is done, which must be well.
async fn finish(narrator: &Narrator, client: &Client, operation: &Operation) -> anyhow::Result<Operation> {
    narrator.fact("operation", &operation.name);
    let operation = progress::follow(client, &operation.name, Until::End, false).await?;
    progress::conclude(&operation)?;
    Ok(operation)
}

async fn fetch_environment(
    narrator: &Narrator,
    client: &Client,
    environment: &str,
) -> anyhow::Result<String> {
    let name = format!("{PROJECT}/environments/{environment}");
    let environment = client
        .projects()
        .get_environment(pb::GetEnvironmentRequest { name, ..Default::default() })
        .await?
        .into_inner();
    let endpoint = environment.endpoints.first();
    let url = &endpoint.with_context(|| format!("`{}` has no address", environment.name))?.url;
    narrator.fact("GET", url);
    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
    let page = http.get(url).send().await?.error_for_status()?.text().await?;
    narrator.quote(&page);
    Ok(page)
}

async fn change(narrator: &mut Narrator, alice: &Client, directory: &Path) -> anyhow::Result<()> {
    narrator.chapter("alice pushes a commit that changes the page, runs the pipeline and deploys it");
    // In this process, beside the platform: the push needs no password.
    let path = drivers_directory(directory).join("repositories/acme/hello.git");
    let commit = tokio::task::spawn_blocking(move || push_change(&path)).await??;
    narrator.fact("pushed", &commit);

    let request = pb::RunPipelineRequest {
        name: format!("{PROJECT}/pipelines/pipeline"),
        revision: commit.clone(),
        request_id: request_id(),
        validate_only: false,
        ..Default::default()
    };
    let operation = alice.pipelines().run_pipeline(request).await?.into_inner();
    let operation = finish(narrator, alice, &operation).await?;
    let run: pb::Run = response(&operation)?;
    ensure!(run.commit == commit, "the run took another commit");

    let request = pb::CreateDeploymentRequest {
        parent: format!("{PROJECT}/environments/development"),
        deployment: Some(pb::Deployment {
            source: Some(pb::deployment::Source::SourceRun(run.name)),
            ..Default::default()
        }),
        request_id: request_id(),
        ..Default::default()
    };
    let operation = alice.deployments().create_deployment(request).await?.into_inner();
    finish(narrator, alice, &operation).await?;
    let page = fetch_environment(narrator, alice, "development").await?;
    ensure!(page.contains(NEW_GREETING) && page.contains(&commit), "the new page is not what was expected");
    ensure!(page.contains("visits: 2"), "the database did not keep its counter");
    Ok(())
}

fn response<M: prost::Message + prost::Name + Default>(operation: &Operation) -> anyhow::Result<M> {
    use pavior_proto::google::longrunning::operation::Result as Outcome;
    match &operation.result {
        Some(Outcome::Response(any)) => Ok(any.to_msg()?),
        _ => bail!("the operation has no response"),
    }
}

/// Clones the repository, changes the greeting wherever it stands, commits and pushes. Returns the commit.
fn push_change(repository: &Path) -> anyhow::Result<String> {
    let work = tempfile::tempdir()?;
    let clone = work.path().join("hello");
    git(work.path(), &["clone", "--quiet", &repository.display().to_string(), "hello"])?;
    let mut changed = 0;
    for entry in walkdir::WalkDir::new(&clone).into_iter().filter_entry(|e| e.file_name() != ".git") {
        let entry = entry?;
        if !entry.file_type().is_file() {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        if text.contains(OLD_GREETING) {
            std::fs::write(entry.path(), text.replace(OLD_GREETING, NEW_GREETING))?;
            changed += 1;
        }
    }
    ensure!(changed > 0, "the greeting stands nowhere in the repository");
    git(&clone, &["commit", "--quiet", "--all", "--message", "Greet differently"])?;
    git(&clone, &["push", "--quiet", "origin", "HEAD"])?;
    git(&clone, &["rev-parse", "HEAD"])
}

fn git(directory: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        .args(["-c", "user.name=Alice", "-c", "user.email=alice@acme.example", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .context("git could not be started")?;
    ensure!(
        output.status.success(),
        "git {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn promote(narrator: &mut Narrator, alice: &Client) -> anyhow::Result<()> {
    narrator.chapter("alice makes staging and promotes to it");
    let operation = alice.projects().create_environment(environment("staging")).await?.into_inner();
    finish(narrator, alice, &operation).await?;
    let request = pb::PromoteDeploymentRequest {
        name: running_deployment(alice, &format!("{PROJECT}/environments/development")).await?,
        environment: format!("{PROJECT}/environments/staging"),
        request_id: request_id(),
        validate_only: false,
        ..Default::default()
    };
    let operation = alice.deployments().promote_deployment(request).await?.into_inner();
    finish(narrator, alice, &operation).await?;
    let page = fetch_environment(narrator, alice, "staging").await?;
    ensure!(
        page.contains("environment: staging") && page.contains(NEW_GREETING),
        "staging shows another page"
    );
    Ok(())
}

fn environment(class: &str) -> pb::CreateEnvironmentRequest {
    pb::CreateEnvironmentRequest {
        parent: PROJECT.to_owned(),
        environment_id: class.to_owned(),
        environment: Some(pb::Environment { environment_class_id: class.to_owned(), ..Default::default() }),
        request_id: request_id(),
        validate_only: false,
        ..Default::default()
    }
}

async fn production(narrator: &mut Narrator, people: &Personas) -> anyhow::Result<()> {
    narrator.chapter("alice asks for production: it waits for the platform group");
    let operation = people.alice.projects().create_environment(environment("production")).await?.into_inner();
    narrator.fact("operation", &operation.name);
    let operation = progress::follow(&people.alice, &operation.name, Until::Approval, false).await?;
    let metadata = progress::metadata(&operation)?;
    ensure!(
        metadata.state() == pb::operation_metadata::State::AwaitingApproval,
        "production did not wait for approval but is {}",
        metadata.state().as_str_name()
    );
    narrator.fact("waits for", &metadata.approval);
    let vote = |reason: &str| policy::ApproveApprovalRequest {
        name: metadata.approval.clone(),
        reason: reason.to_owned(),
        plan_digest: metadata.plan_digest.clone(),
        request_id: request_id(),
    };
    match people.alice.approvals().approve_approval(vote("please")).await {
        Ok(_) => bail!("alice approved her own request"),
        Err(status) => narrator.fact("alice may not approve it herself", &reason(&status)),
    }

    narrator.chapter("pia, a platform engineer, approves; production comes up");
    let answer = people.pia.approvals().approve_approval(vote("looks good")).await?.into_inner();
    narrator.fact("approval", &output::state(answer.state().as_str_name(), "STATE_"));
    finish(narrator, &people.alice, &operation).await?;
    let page = fetch_environment(narrator, &people.alice, "production").await?;
    ensure!(page.contains("environment: production"), "production shows another page");
    Ok(())
}

async fn denied(narrator: &mut Narrator, people: &Personas) -> anyhow::Result<()> {
    narrator.chapter("What is not allowed is refused, with the rule that says so");
    let request = || pb::DeleteEnvironmentRequest {
        name: format!("{PROJECT}/environments/production"),
        request_id: request_id(),
        ..Default::default()
    };
    match people.alice.projects().delete_environment(request()).await {
        Ok(_) => bail!("alice deleted production"),
        Err(status) => {
            ensure!(status.code() == Code::FailedPrecondition, "refused otherwise than expected: {status}");
            narrator.quote(&failure::describe(&status.into()));
        }
    }
    match people.bob.projects().delete_environment(request()).await {
        Ok(_) => bail!("bob deleted another team's environment"),
        Err(status) => {
            ensure!(status.code() == Code::PermissionDenied, "refused otherwise than expected: {status}");
            narrator.quote(&failure::describe(&status.into()));
        }
    }
    narrator.chapter("vera, an auditor, reads what happened");
    let request = pavior_proto::pavior::audit::v1::ListAuditRecordsRequest {
        parent: "organizations/acme".to_owned(),
        page_size: 8,
        order_by: "index desc".to_owned(),
        ..Default::default()
    };
    let records = people.vera.audit().list_audit_records(request).await?.into_inner().audit_records;
    ensure!(!records.is_empty(), "the audit log is empty");
    for record in records {
        let event = record.event.unwrap_or_default();
        let who = audit::who(&event.principal.unwrap_or_default());
        let outcome = event.outcome.unwrap_or_default();
        narrator
            .fact(&record.index.to_string(), &format!("{who} {} {}", event.action, audit::outcome(&outcome)));
    }
    Ok(())
}

fn reason(status: &tonic::Status) -> String {
    use tonic_types::StatusExt as _;
    let info = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    format!("{} {info}: {}", failure::code_name(status.code()), status.message())
}
