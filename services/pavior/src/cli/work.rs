//! Commands that ask for something and wait for it: projects, environments, runs, deployments, promotions, plans.

use pavior_proto::google::longrunning::Operation;
use pavior_proto::google::longrunning::operation::Result as Outcome;
use pavior_proto::pavior::platform::v1 as platform;
use pavior_proto::pavior::policy::v1::{self as policy, Effect};
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::plan::intent::Request as Intended;
use tonic::{Response, Status};

use super::args::{
    DeployArgs, EnvCommand, KeepArgs, PlanCommand, ProjectCommand, PromoteArgs, RunArgs, WaitArgs,
};
use super::client::{Client, request_id};
use super::lists;
use super::output::{self, Printer};
use super::progress::Until;
use super::requests::Asked;
use super::retry::Patience;
use super::{progress, requests};

/// Shows the operation that a call began: its name at once, or how it ends.
async fn settle<F>(
    client: &Client,
    printer: Printer,
    wait: &WaitArgs,
    call: impl Fn() -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = Result<Response<Operation>, Status>>,
{
    // The request has an id: made again, it has the first answer.
    let operation = Patience::new().call(call).await?.into_inner();
    if wait.no_wait {
        return printer.one(&operation, &[("operation", operation.name.clone())]);
    }
    if !printer.is_json() {
        eprintln!("operation {}", operation.name);
    }
    let operation =
        progress::follow_interruptibly(client, &operation.name, Until::Approval, printer.is_json()).await?;
    show_result(printer, &operation)?;
    progress::conclude(&operation)
}

fn show_result(printer: Printer, operation: &Operation) -> anyhow::Result<()> {
    let metadata = progress::metadata(operation)?;
    if printer.is_json() {
        return printer.one(operation, &[]);
    }
    let mut pairs = vec![
        ("target", metadata.target.clone()),
        ("state", output::state(metadata.state().as_str_name(), "STATE_")),
    ];
    // What is planned, and then done, are steps: without one, what is asked for was there.
    if operation.done && matches!(operation.result, Some(Outcome::Response(_))) && metadata.steps.is_empty() {
        pairs.push(("changed", "nothing: it is as was asked for already".to_owned()));
    }
    if let Some(Outcome::Response(any)) = &operation.result {
        if let Ok(environment) = any.to_msg::<pb::Environment>() {
            // One that went is told as it was.
            if environment.state() != pb::environment::State::Deleting {
                pairs.push(("url", lists::urls(&environment)));
            }
        } else if let Ok(deployment) = any.to_msg::<pb::Deployment>() {
            pairs.push(("commit", deployment.artifact.unwrap_or_default().commit));
            pairs.push(("url", deployment.url));
        } else if let Ok(run) = any.to_msg::<pb::Run>() {
            pairs.push(("commit", run.commit));
        }
    }
    printer.one(operation, &pairs)
}

/// `pavior project`.
pub(crate) async fn project(
    client: &Client,
    printer: Printer,
    command: ProjectCommand,
) -> anyhow::Result<()> {
    match command {
        ProjectCommand::Create { spec, wait } => {
            let request = requests::create_project(client, &spec, Asked::Do(wait.request_id.as_ref()))?;
            let call = || async { client.projects().create_project(request.clone()).await };
            settle(client, printer, &wait, call).await
        }
        ProjectCommand::Delete { project, force, wait } => {
            let asked = Asked::Do(wait.request_id.as_ref());
            let request = requests::delete_project(client, &project, force.force, asked)?;
            let call = || async { client.projects().delete_project(request.clone()).await };
            settle(client, printer, &wait, call).await
        }
        ProjectCommand::List(list) => lists::projects(client, printer, &list).await,
        ProjectCommand::Show { project } => show_project(client, printer, &project).await,
    }
}

async fn show_project(client: &Client, printer: Printer, project: &str) -> anyhow::Result<()> {
    let name = client.full_name(project, &["projects"])?;
    let overview = client
        .platform()
        .get_project_overview(platform::GetProjectOverviewRequest { name: format!("{name}/overview") })
        .await?
        .into_inner();
    if printer.is_json() {
        return printer.one(&overview, &[]);
    }
    let project = overview.project.clone().unwrap_or_default();
    printer.one(
        &overview,
        &[
            ("project", project.name.clone()),
            ("owner", project.owner.clone()),
            ("made from", project.template_version.clone()),
            ("state", output::state(project.state().as_str_name(), "STATE_")),
            ("created", output::time(project.create_time.as_ref())),
            ("operation", project.active_operation.clone()),
            ("not reached", fields(overview.unavailable_fields.as_ref())),
            ("not shown in full", fields(overview.incomplete_fields.as_ref())),
        ],
    )?;
    if !overview.environments.is_empty() {
        output::say(&format!("\n{}", lists::environment_table(&overview.environments)))?;
    }
    for approval in &overview.pending_approvals {
        output::say(&format!(
            "\nwaits for approval: {}\n  {}",
            output::id(&approval.name),
            approval.summary
        ))?;
    }
    Ok(())
}

/// The names of fields, for people.
fn fields(mask: Option<&prost_types::FieldMask>) -> String {
    mask.map(|mask| mask.paths.join(", ").replace('_', " ")).unwrap_or_default()
}

/// `pavior env`.
pub(crate) async fn environment(
    client: &Client,
    printer: Printer,
    command: EnvCommand,
) -> anyhow::Result<()> {
    match command {
        EnvCommand::Create { spec, wait } => {
            let request = requests::create_environment(client, &spec, Asked::Do(wait.request_id.as_ref()))?;
            let call = || async { client.projects().create_environment(request.clone()).await };
            settle(client, printer, &wait, call).await
        }
        EnvCommand::Delete { environment, wait } => {
            let request =
                requests::delete_environment(client, &environment, Asked::Do(wait.request_id.as_ref()))?;
            let call = || async { client.projects().delete_environment(request.clone()).await };
            settle(client, printer, &wait, call).await
        }
        EnvCommand::List { project, list } => lists::environments(client, printer, &project, &list).await,
        EnvCommand::Show { environment } => lists::environment(client, printer, &environment).await,
    }
}

/// `pavior run`.
pub(crate) async fn run(client: &Client, printer: Printer, args: RunArgs) -> anyhow::Result<()> {
    let request = pb::RunPipelineRequest {
        name: client.full_name(&format!("{}/{}", args.project, args.pipeline), &["projects", "pipelines"])?,
        revision: args.revision,
        request_id: args.wait.request_id.clone().unwrap_or_else(request_id),
        ..Default::default()
    };
    let call = || async { client.pipelines().run_pipeline(request.clone()).await };
    settle(client, printer, &args.wait, call).await
}

/// `pavior deploy`.
pub(crate) async fn deploy(client: &Client, printer: Printer, args: DeployArgs) -> anyhow::Result<()> {
    let request = requests::create_deployment(client, &args.spec, Asked::Do(args.wait.request_id.as_ref()))?;
    let call = || async { client.deployments().create_deployment(request.clone()).await };
    settle(client, printer, &args.wait, call).await
}

/// `pavior promote`.
pub(crate) async fn promote(client: &Client, printer: Printer, args: PromoteArgs) -> anyhow::Result<()> {
    let (environments, deployments) =
        (&["projects", "environments"][..], &["projects", "environments", "deployments"][..]);
    let named = |id: &str, parts| client.full_name(&format!("{}/{id}", args.project), parts);
    let name = match args.from.contains('/') {
        true => named(&args.from, deployments)?,
        false => requests::running_deployment(client, &named(&args.from, environments)?).await?,
    };
    let request = pb::PromoteDeploymentRequest {
        name,
        environment: named(&args.to, environments)?,
        request_id: args.wait.request_id.clone().unwrap_or_else(request_id),
        ..Default::default()
    };
    let call = || async { client.deployments().promote_deployment(request.clone()).await };
    settle(client, printer, &args.wait, call).await
}

/// `pavior plan`.
pub(crate) async fn plan(client: &Client, printer: Printer, command: PlanCommand) -> anyhow::Result<()> {
    let asked = |keep: &KeepArgs| if keep.keep { Asked::Part } else { Asked::Look };
    let (intended, KeepArgs { keep }) = match command {
        PlanCommand::Project { spec, keep } => {
            (Intended::CreateProject(requests::create_project(client, &spec, asked(&keep))?), keep)
        }
        PlanCommand::Env { spec, keep } => {
            (Intended::CreateEnvironment(requests::create_environment(client, &spec, asked(&keep))?), keep)
        }
        PlanCommand::Deploy { spec, keep } => {
            (Intended::CreateDeployment(requests::create_deployment(client, &spec, asked(&keep))?), keep)
        }
        PlanCommand::DeleteEnv { environment, keep } => {
            let request = requests::delete_environment(client, &environment, asked(&keep))?;
            (Intended::DeleteEnvironment(request), keep)
        }
        PlanCommand::DeleteProject { project, force, keep } => {
            let request = requests::delete_project(client, &project, force.force, asked(&keep))?;
            (Intended::DeleteProject(request), keep)
        }
        PlanCommand::Show { plan } => return show_plan(printer, &kept_plan(client, &plan).await?),
        PlanCommand::Execute { plan, digest, wait } => {
            return execute_plan(client, printer, &plan, digest, &wait).await;
        }
    };
    let plan = if keep { keep_plan(client, intended).await? } else { look(client, intended).await? };
    show_plan(printer, &plan)
}

/// The plan of a request that is not carried out.
async fn look(client: &Client, intended: Intended) -> anyhow::Result<pb::Plan> {
    let (mut projects, mut deployments) = (client.projects(), client.deployments());
    let operation = match intended {
        Intended::CreateProject(request) => projects.create_project(request).await,
        Intended::DeleteProject(request) => projects.delete_project(request).await,
        Intended::CreateEnvironment(request) => projects.create_environment(request).await,
        Intended::UpdateEnvironment(request) => projects.update_environment(request).await,
        Intended::DeleteEnvironment(request) => projects.delete_environment(request).await,
        Intended::RunPipeline(request) => client.pipelines().run_pipeline(request).await,
        Intended::CreateDeployment(request) => deployments.create_deployment(request).await,
        Intended::PromoteDeployment(request) => deployments.promote_deployment(request).await,
    };
    Ok(progress::metadata(operation?.get_ref())?.validated_plan.unwrap_or_default())
}

async fn keep_plan(client: &Client, intended: Intended) -> anyhow::Result<pb::Plan> {
    let intent = Some(pb::plan::Intent { request: Some(intended) });
    let request = pb::CreatePlanRequest {
        parent: client.organization()?,
        plan: Some(pb::Plan { intent, ..Default::default() }),
        request_id: request_id(),
    };
    let call = || async { client.plans().create_plan(request.clone()).await };
    Ok(Patience::new().call(call).await?.into_inner())
}

async fn kept_plan(client: &Client, plan: &str) -> anyhow::Result<pb::Plan> {
    let name = client.full_name(plan, &["plans"])?;
    Ok(client.plans().get_plan(pb::GetPlanRequest { name }).await?.into_inner())
}

async fn execute_plan(
    client: &Client,
    printer: Printer,
    plan: &str,
    digest: String,
    wait: &WaitArgs,
) -> anyhow::Result<()> {
    let digest = if digest.is_empty() { kept_plan(client, plan).await?.digest } else { digest };
    let request = pb::ExecutePlanRequest {
        name: client.full_name(plan, &["plans"])?,
        plan_digest: digest,
        request_id: wait.request_id.clone().unwrap_or_else(request_id),
    };
    let call = || async { client.plans().execute_plan(request.clone()).await };
    settle(client, printer, wait, call).await
}

/// Prints a plan: what changes, what policy says, what it costs, who must agree.
pub(crate) fn show_plan(printer: Printer, plan: &pb::Plan) -> anyhow::Result<()> {
    if printer.is_json() {
        return printer.one(plan, &[]);
    }
    let rows = plan.changes.iter().map(|change| {
        vec![
            output::state(change.action().as_str_name(), "ACTION_"),
            change.step_id.clone(),
            output::id(&change.resource_type),
            change.driver_id.clone(),
            output::money(change.monthly_cost.as_ref()),
            change.depends_on_step_ids.join(", "),
            change.drift_message.clone(),
        ]
    });
    let header = ["action", "step", "type", "driver", "cost a month", "after", "because it"];
    output::say(&format!("{}\n", output::table(&header, rows)))?;
    let decision = plan.decision.clone().unwrap_or_default();
    let verdict = match decision.effect() {
        Effect::Allow => "allowed".to_owned(),
        Effect::RequireApproval => format!(
            "needs approval: {}",
            decision
                .requirements
                .iter()
                .map(|a| format!("{} of {}", a.quorum, output::id(&a.group)))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        Effect::Deny => "denied".to_owned(),
        Effect::Unspecified => String::new(),
    };
    let said = |reasons: &[policy::Reason]| {
        let said = reasons.iter().filter(|reason| !reason.message.is_empty());
        said.map(|reason| format!("{}: {}", reason.rule_id, reason.message)).collect::<Vec<_>>().join("\n")
    };
    printer.one(
        plan,
        &[
            ("plan", plan.summary.clone()),
            ("kept as", plan.name.clone()),
            ("policy", verdict),
            ("because", said(&decision.reasons)),
            ("warning", said(&decision.warnings)),
            (
                "cost a month",
                output::cost(plan.monthly_cost_before.as_ref(), plan.monthly_cost_after.as_ref()),
            ),
            ("digest", plan.digest.clone()),
        ],
    )
}
