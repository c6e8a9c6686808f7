//! The main job: somebody asks for something from a golden path and gets it, really running.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pavior::cli::client::request_id;
use pavior::cli::progress;
use pavior_proto::pavior::audit::v1 as audit;
use pavior_proto::pavior::platform::v1 as platform;
use pavior_proto::pavior::policy::v1 as policy;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_testkit::wait_for;
use pavior_tests::{Embedded, Person, details};
use pb::operation_metadata::State;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_in_one_process() -> Result<()> {
    let system = Embedded::start().await?;
    tell(&|name| system.person(name)).await?;
    system.stop().await
}

/// The whole story, whoever the system is: run by every way of deploying it.
pub(crate) async fn tell(person: &dyn Fn(&str) -> Result<Person>) -> Result<()> {
    let alice = person("alice")?;
    plan_writes_nothing(&alice).await?;
    let project = alice.create_project("shop").await?;
    ensure!(project.state() == pb::project::State::Active, "the project is {:?}", project.state());
    for visit in 1..=2 {
        let page = alice.page("shop", "development").await?;
        ensure!(page.contains(&format!("visits: {visit}")), "{page}");
    }
    run_and_deploy(&alice).await?;
    promote(&alice).await?;
    let operation = production(&alice, &person("pia")?).await?;
    operable(&operation, &alice, &person("bob")?, &person("vera")?).await?;
    refused(&alice, &person("bob")?, &person("vera")?).await?;
    read(&alice, &person("vera")?).await?;
    take_down(&alice, &person("pia")?).await
}

async fn plan_writes_nothing(alice: &Person) -> Result<()> {
    let request = pb::CreateProjectRequest { validate_only: true, ..alice.project("shop") };
    let operation = alice.projects().create_project(request).await?.into_inner();
    ensure!(operation.done, "a plan is an operation that has ended");
    let plan = progress::metadata(&operation)?.validated_plan.context("no plan")?;
    ensure!(plan.changes.len() >= 5 && plan.digest.starts_with("sha256:"), "{plan:?}");
    let name = "organizations/acme/projects/shop".to_owned();
    let status =
        alice.projects().get_project(pb::GetProjectRequest { name, ..Default::default() }).await.unwrap_err();
    ensure!(status.code() == Code::NotFound, "{status}");
    Ok(())
}

async fn run_and_deploy(alice: &Person) -> Result<()> {
    let request = pb::RunPipelineRequest {
        name: "organizations/acme/projects/shop/pipelines/pipeline".to_owned(),
        request_id: request_id(),
        ..Default::default()
    };
    let operation = alice.pipelines().run_pipeline(request).await?.into_inner();
    progress::conclude(&alice.finish(&operation).await?)?;
    let request = pb::ListRunsRequest {
        parent: "organizations/acme/projects/shop/pipelines/pipeline".to_owned(),
        filter: "state = STATE_SUCCEEDED".to_owned(),
        ..Default::default()
    };
    let runs = alice.pipelines().list_runs(request).await?.into_inner().runs;
    ensure!(runs.len() == 2 && runs.iter().all(|run| run.artifacts.len() == 1), "{runs:?}");
    let request = pb::CreateDeploymentRequest {
        parent: "organizations/acme/projects/shop/environments/development".to_owned(),
        deployment: Some(pb::Deployment {
            source: Some(pb::deployment::Source::SourceRun(runs.first().context("a run")?.name.clone())),
            ..Default::default()
        }),
        request_id: request_id(),
        ..Default::default()
    };
    let operation = alice.deployments().create_deployment(request).await?.into_inner();
    progress::conclude(&alice.finish(&operation).await?)?;
    let page = alice.page("shop", "development").await?;
    ensure!(page.contains("visits: 3"), "the database keeps its counter over a deployment: {page}");
    Ok(())
}

async fn promote(alice: &Person) -> Result<()> {
    let request = alice.environment("shop", "staging");
    let operation = alice.projects().create_environment(request).await?.into_inner();
    progress::conclude(&alice.finish(&operation).await?)?;
    let name = "organizations/acme/projects/shop/environments/development".to_owned();
    let running =
        alice.projects().get_environment(pb::GetEnvironmentRequest { name, ..Default::default() }).await?;
    let request = pb::PromoteDeploymentRequest {
        name: running.into_inner().active_deployments.pop().context("nothing runs")?,
        environment: "organizations/acme/projects/shop/environments/staging".to_owned(),
        request_id: request_id(),
        validate_only: false,
        ..Default::default()
    };
    let operation = alice.deployments().promote_deployment(request).await?.into_inner();
    progress::conclude(&alice.finish(&operation).await?)?;
    let page = alice.page("shop", "staging").await?;
    ensure!(page.contains("environment: staging") && page.contains("visits: 1"), "{page}");
    Ok(())
}

/// Returns the name of the operation that brought the production environment.
async fn production(alice: &Person, pia: &Person) -> Result<String> {
    let request = alice.environment("shop", "production");
    let operation = alice.projects().create_environment(request).await?.into_inner();
    let waiting = |operation: &_| {
        progress::rests(operation)
            || progress::metadata(operation).is_ok_and(|m| m.state() == State::AwaitingApproval)
    };
    let operation = alice.until(&operation.name, waiting).await?;
    let metadata = progress::metadata(&operation)?;
    ensure!(metadata.state() == State::AwaitingApproval, "{:?}", metadata.state());
    let vote = |digest: &str| policy::ApproveApprovalRequest {
        name: metadata.approval.clone(),
        reason: "looks good".to_owned(),
        plan_digest: digest.to_owned(),
        request_id: request_id(),
    };
    let own = alice.approvals().approve_approval(vote(&metadata.plan_digest)).await.unwrap_err();
    ensure!(matches!(own.code(), Code::FailedPrecondition | Code::PermissionDenied), "{own}");
    let other =
        pia.approvals().approve_approval(vote(&format!("sha256:{}", "0".repeat(64)))).await.unwrap_err();
    ensure!(other.code() == Code::FailedPrecondition, "a vote on another plan: {other}");
    let approved = pia.approvals().approve_approval(vote(&metadata.plan_digest)).await?.into_inner();
    ensure!(approved.state() == policy::approval::State::Approved, "{approved:?}");
    progress::conclude(&alice.finish(&operation).await?)?;
    ensure!(
        alice.page("shop", "production").await?.contains("environment: production"),
        "production answers"
    );
    Ok(operation.name)
}

/// What can be done with an operation: everybody reads it, and whose project it is about can do more.
async fn operable(operation: &str, alice: &Person, bob: &Person, vera: &Person) -> Result<()> {
    let reads = ["provisioning.operations.get"];
    let works =
        ["provisioning.operations.cancel", "provisioning.operations.get", "provisioning.operations.retry"];
    for (person, expected) in [(alice, &works[..]), (bob, &reads[..]), (vera, &reads[..])] {
        let ask = platform::ListAllowedActionsRequest { resource: operation.to_owned() };
        let allowed = person.platform().list_allowed_actions(ask).await?.into_inner();
        ensure!(allowed.actions == expected && allowed.planned_actions.is_empty(), "{allowed:?}");
    }
    Ok(())
}

async fn refused(alice: &Person, bob: &Person, vera: &Person) -> Result<()> {
    let delete = || pb::DeleteEnvironmentRequest {
        name: "organizations/acme/projects/shop/environments/production".to_owned(),
        request_id: request_id(),
        ..Default::default()
    };
    let status = alice.projects().delete_environment(delete()).await.unwrap_err();
    let (reason, errors) = details(&status);
    ensure!((status.code(), reason.as_str()) == (Code::FailedPrecondition, "GUARDRAIL_DENIED"), "{status}");
    let rules = errors.precondition_failure().context("no rule is named")?;
    ensure!(rules.violations.iter().any(|v| v.subject == "production-is-kept"), "{rules:?}");
    for other in [bob, vera] {
        let status = other.projects().delete_environment(delete()).await.unwrap_err();
        let (reason, errors) = details(&status);
        ensure!((status.code(), reason.as_str()) == (Code::PermissionDenied, "ACCESS_DENIED"), "{status}");
        let metadata = &errors.error_info().context("no ErrorInfo")?.metadata;
        let name = metadata.get("decision").context("no decision is named")?;
        told(name, other, vera).await?;
    }
    Ok(())
}

/// An auditor finds the decision that an error names.
async fn told(name: &str, asker: &Person, auditor: &Person) -> Result<()> {
    let get = || policy::GetDecisionRequest { name: name.to_owned() };
    // It is written a moment after it was told.
    let found = wait_for("the decision", Duration::from_secs(20), || async {
        auditor.access().get_decision(get()).await.map(|found| found.into_inner())
    });
    let found = found.await;
    ensure!(found.effect() == policy::Effect::Deny && found.name == name, "{found:?}");
    ensure!(found.action == "provisioning.environments.delete", "{found:?}");
    let who = asker.platform().who_am_i(platform::WhoAmIRequest {}).await?.into_inner().principal;
    ensure!(who.is_some_and(|who| who.name == found.principal), "{found:?}");
    Ok(())
}

async fn read(alice: &Person, vera: &Person) -> Result<()> {
    let name = "organizations/acme/projects/shop".to_owned();
    let overview = alice
        .platform()
        .get_project_overview(platform::GetProjectOverviewRequest { name: format!("{name}/overview") })
        .await?
        .into_inner();
    ensure!(overview.environments.len() == 3 && overview.unavailable_fields.is_none(), "{overview:?}");
    ensure!(overview.incomplete_fields.is_none(), "{overview:?}");
    let resource = "organizations/acme/projects/shop".to_owned();
    let allowed = alice
        .platform()
        .list_allowed_actions(platform::ListAllowedActionsRequest { resource: resource.clone() })
        .await?
        .into_inner()
        .planned_actions;
    ensure!(allowed.contains(&"provisioning.environments.create".to_owned()), "{allowed:?}");
    let records = || audit::ListAuditRecordsRequest {
        parent: "organizations/acme".to_owned(),
        filter: "event.action = provisioning.environments.create".to_owned(),
        ..Default::default()
    };
    let status = alice.audit().list_audit_records(records()).await.unwrap_err();
    ensure!(status.code() == Code::PermissionDenied, "developers do not read the audit log: {status}");
    let records = vera.audit().list_audit_records(records()).await?.into_inner().audit_records;
    ensure!(records.len() >= 2, "two environments were asked for: {records:?}");
    // Also where the name is all that policy needs.
    let ask = platform::ListAllowedActionsRequest { resource: records[0].name.clone() };
    let allowed = vera.platform().list_allowed_actions(ask).await?.into_inner().actions;
    ensure!(allowed.contains(&"audit.auditRecords.get".to_owned()), "{allowed:?}");
    Ok(())
}

async fn take_down(alice: &Person, pia: &Person) -> Result<()> {
    let name = "organizations/acme/projects/shop".to_owned();
    let request = pb::DeleteProjectRequest {
        name: name.clone(),
        force: true,
        request_id: request_id(),
        ..Default::default()
    };
    let operation = pia.projects().delete_project(request).await?.into_inner();
    progress::conclude(&pia.finish(&operation).await?)?;
    let status =
        alice.projects().get_project(pb::GetProjectRequest { name, ..Default::default() }).await.unwrap_err();
    ensure!(status.code() == Code::NotFound, "{status}");
    Ok(())
}
