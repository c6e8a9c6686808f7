//! Commands about plans.

use pavior_proto::pavior::policy::v1::{self as policy, Effect};
use pavior_proto::pavior::provisioning::v1 as pb;

use super::args::{ListArgs, PlanCommand, Planned, WaitArgs};
use super::client::Client;
use super::output::{self, Printer};
use super::page::list_all;
use super::requests::{Intent, Purpose, send};
use super::retry::Patience;
use super::{operation, progress};

/// `pavior plan`.
pub(super) async fn plan(client: &Client, printer: Printer, command: PlanCommand) -> anyhow::Result<()> {
    match command {
        PlanCommand::Project(planned) => make(client, printer, planned).await,
        PlanCommand::Env(planned) => make(client, printer, planned).await,
        PlanCommand::UpdateEnv(planned) => make(client, printer, planned).await,
        PlanCommand::Run(planned) => make(client, printer, planned).await,
        PlanCommand::Deploy(planned) => make(client, printer, planned).await,
        PlanCommand::Promote(planned) => make(client, printer, planned).await,
        PlanCommand::DeleteEnv(planned) => make(client, printer, planned).await,
        PlanCommand::RepairProject(planned) => make(client, printer, planned).await,
        PlanCommand::DeleteProject(planned) => make(client, printer, planned).await,
        PlanCommand::DeleteOrphan(planned) => make(client, printer, planned).await,
        PlanCommand::List(list) => plans(client, printer, &list).await,
        PlanCommand::Show { plan } => show(printer, &kept(client, &plan).await?),
        PlanCommand::Execute { plan, digest, wait } => execute(client, printer, &plan, digest, &wait).await,
    }
}

/// Shows the plan of a request that is not carried out, and keeps it where that was asked for.
async fn make<S: Intent + clap::Args>(
    client: &Client,
    printer: Printer,
    planned: Planned<S>,
) -> anyhow::Result<()> {
    let Planned { spec, keep, request: id } = planned;
    if !keep {
        let request = spec.request(client, &Purpose::Preview).await?;
        let operation = send(client, request).await?.into_inner();
        let plan = progress::metadata(&operation)?.validated_plan.unwrap_or_default();
        return show(printer, &plan);
    }
    let intent = pb::plan::Intent { request: Some(spec.request(client, &Purpose::Keep).await?) };
    let request = pb::CreatePlanRequest {
        parent: client.organization()?,
        plan: Some(pb::Plan { intent: Some(intent), ..Default::default() }),
        request_id: id.id(),
    };
    let call = || async { client.plans().create_plan(request.clone()).await };
    show(printer, &Patience::new().call(call).await?.into_inner())
}

async fn plans(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let parent = client.organization()?;
    let all = list_all!(list, parent, client.plans(), list_plans, pb::ListPlansRequest, plans);
    printer.list(&all, &["plan", "created", "by", "action", "summary"], |plan| {
        vec![
            output::id(&plan.name),
            output::time(plan.create_time.as_ref()),
            output::id(&plan.requester),
            plan.action.clone(),
            plan.summary.clone(),
        ]
    })
}

async fn kept(client: &Client, plan: &str) -> anyhow::Result<pb::Plan> {
    let name = client.full_name(plan, &["plans"])?;
    Ok(client.plans().get_plan(pb::GetPlanRequest { name, ..Default::default() }).await?.into_inner())
}

async fn execute(
    client: &Client,
    printer: Printer,
    plan: &str,
    digest: String,
    wait: &WaitArgs,
) -> anyhow::Result<()> {
    let digest = if digest.is_empty() { kept(client, plan).await?.digest } else { digest };
    let request = pb::ExecutePlanRequest {
        name: client.full_name(plan, &["plans"])?,
        plan_digest: digest,
        request_id: wait.request.id(),
    };
    let call = || async { client.plans().execute_plan(request.clone()).await };
    operation::settle(client, printer, wait, call).await
}

/// Prints a plan: what changes, what policy says, what it costs, who must agree.
fn show(printer: Printer, plan: &pb::Plan) -> anyhow::Result<()> {
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
