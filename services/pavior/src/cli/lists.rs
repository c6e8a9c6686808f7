//! Commands that list and show.

use pavior_proto::google::longrunning::{
    CancelOperationRequest, GetOperationRequest, ListOperationsRequest, Operation,
};
use pavior_proto::pavior::audit::v1 as audit;
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_proto::pavior::policy::v1 as policy;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_rpc::convert;

use super::args::{ListArgs, OpCommand, VoteArgs};
use super::client::{Client, request_id};
use super::output::{self, Printer};
use super::progress::{self, Until};

/// Gathers pages until there are enough results or no more pages.
macro_rules! pages {
    ($limit:expr, |$size:ident, $token:ident| $call:expr, $field:ident) => {{
        let mut all = Vec::new();
        let mut $token = String::new();
        loop {
            let $size = i32::try_from(($limit - all.len()).min(1000))?;
            let page = $call.await?.into_inner();
            all.extend(page.$field);
            $token = page.next_page_token;
            if $token.is_empty() || all.len() >= $limit {
                break all;
            }
        }
    }};
}

/// Lists projects.
pub(crate) async fn projects(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let mut provisioning = client.provisioning();
    let parent = client.organization()?;
    let all = pages!(
        list.limit,
        |page_size, page_token| provisioning.list_projects(pb::ListProjectsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
            filter: list.filter.clone(),
            order_by: list.order_by.clone(),
        }),
        projects
    );
    printer.list(&all, &["project", "owner", "made from", "state", "created"], |p| {
        vec![
            output::id(&p.name),
            output::id(&p.owner),
            version(&p.template_version),
            output::state(p.state().as_str_name(), "STATE_"),
            output::time(p.create_time.as_ref()),
        ]
    })
}

fn version(name: &str) -> String {
    let mut parts = name.split('/').skip(3).step_by(2);
    format!("{}@{}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// Lists the environments of a project.
pub(crate) async fn environments(
    client: &Client,
    printer: Printer,
    project: &str,
    list: &ListArgs,
) -> anyhow::Result<()> {
    let mut provisioning = client.provisioning();
    let parent = client.full_name(project, &["projects"])?;
    let all = pages!(
        list.limit,
        |page_size, page_token| provisioning.list_environments(pb::ListEnvironmentsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
            filter: list.filter.clone(),
            order_by: list.order_by.clone(),
        }),
        environments
    );
    printer.list(&all, ENVIRONMENT_HEADER, environment_row)
}

const ENVIRONMENT_HEADER: &[&str] = &["environment", "class", "state", "url", "expires"];

fn environment_row(e: &pb::Environment) -> Vec<String> {
    vec![
        output::id(&e.name),
        e.environment_class.clone(),
        output::state(e.state().as_str_name(), "STATE_"),
        e.url.clone(),
        output::time(e.expire_time.as_ref()),
    ]
}

/// Environments as a table.
pub(crate) fn environment_table(environments: &[pb::Environment]) -> String {
    output::table(ENVIRONMENT_HEADER, environments.iter().map(environment_row))
}

/// Shows an environment and its resources.
pub(crate) async fn environment(client: &Client, printer: Printer, environment: &str) -> anyhow::Result<()> {
    let name = client.full_name(environment, &["projects", "environments"])?;
    let (mut one, mut two) = (client.provisioning(), client.provisioning());
    let request = pb::ListResourcesRequest { parent: name.clone(), page_size: 1000, ..Default::default() };
    let (environment, resources) = tokio::try_join!(
        one.get_environment(pb::GetEnvironmentRequest { name }),
        two.list_resources(request)
    )?;
    let environment = environment.into_inner();
    printer.one(
        &environment,
        &[
            ("environment", environment.name.clone()),
            ("class", environment.environment_class.clone()),
            ("state", output::state(environment.state().as_str_name(), "STATE_")),
            ("url", environment.url.clone()),
            ("deployment", environment.deployment.clone()),
            ("operation", environment.operation.clone()),
            ("expires", output::time(environment.expire_time.as_ref())),
        ],
    )?;
    if printer.is_json() {
        return Ok(());
    }
    println!();
    printer.list(&resources.into_inner().resources, &["resource", "type", "driver", "state"], |r| {
        vec![
            output::id(&r.name),
            output::id(&r.resource_type),
            r.driver.clone(),
            output::state(r.state().as_str_name(), "STATE_"),
        ]
    })
}

/// `pavior op`.
pub(crate) async fn operation(client: &Client, printer: Printer, command: OpCommand) -> anyhow::Result<()> {
    let full = |operation: &str| client.full_name(operation, &["operations"]);
    match command {
        OpCommand::List(list) => operations(client, printer, &list).await,
        OpCommand::Show { operation } => {
            let request = GetOperationRequest { name: full(&operation)? };
            let operation = client.operations().get_operation(request).await?.into_inner();
            show_operation(printer, &operation)
        }
        OpCommand::Watch { operation } => {
            let operation =
                progress::follow(client, &full(&operation)?, Until::End, printer.is_json()).await?;
            show_operation(printer, &operation)?;
            progress::conclude(&operation)
        }
        OpCommand::Cancel { operation } => {
            client.operations().cancel_operation(CancelOperationRequest { name: full(&operation)? }).await?;
            eprintln!("asked to stop; follow it with: pavior op watch {operation}");
            Ok(())
        }
        OpCommand::Retry { operation } => {
            let request = pb::RetryOperationRequest { name: full(&operation)?, request_id: request_id() };
            let operation = client.provisioning().retry_operation(request).await?.into_inner();
            show_operation(printer, &operation)
        }
    }
}

async fn operations(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let mut service = client.operations();
    let name = client.organization()?;
    let all = pages!(
        list.limit,
        |page_size, page_token| service.list_operations(ListOperationsRequest {
            name: name.clone(),
            filter: list.filter.clone(),
            page_size,
            page_token,
            ..Default::default()
        }),
        operations
    );
    if printer.is_json() {
        // `Any` fields are shown through the descriptors, which know every metadata type.
        return printer.list(&all, &[], |_| Vec::new());
    }
    let rows = all.iter().map(|operation| {
        let metadata = progress::metadata(operation).unwrap_or_default();
        vec![
            output::id(&operation.name),
            metadata.action.clone(),
            metadata.target.clone(),
            output::state(metadata.state().as_str_name(), "STATE_"),
            output::time(metadata.create_time.as_ref()),
        ]
    });
    println!("{}", output::table(&["operation", "action", "target", "state", "created"], rows));
    Ok(())
}

fn show_operation(printer: Printer, operation: &Operation) -> anyhow::Result<()> {
    let metadata = progress::metadata(operation)?;
    printer.one(
        operation,
        &[
            ("operation", operation.name.clone()),
            ("action", metadata.action.clone()),
            ("target", metadata.target.clone()),
            ("state", output::state(metadata.state().as_str_name(), "STATE_")),
            ("approval", metadata.approval_request.clone()),
            ("created", output::time(metadata.create_time.as_ref())),
            ("ended", output::time(metadata.end_time.as_ref())),
        ],
    )?;
    if printer.is_json() {
        return Ok(());
    }
    let rows = metadata.steps.iter().map(|step| {
        vec![
            step.id.clone(),
            output::state(step.action().as_str_name(), "ACTION_"),
            step.driver.clone(),
            output::state(step.state().as_str_name(), "STATE_"),
            step.attempt.to_string(),
            step.error.as_ref().map(|e| e.message.clone()).unwrap_or_default(),
        ]
    });
    println!("\n{}", output::table(&["step", "action", "driver", "state", "attempt", "error"], rows));
    Ok(())
}

/// Lists approval requests.
pub(crate) async fn approvals(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let mut service = client.policy();
    let parent = client.organization()?;
    let all = pages!(
        list.limit,
        |page_size, page_token| service.list_approval_requests(policy::ListApprovalRequestsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
            filter: list.filter.clone(),
            order_by: list.order_by.clone(),
        }),
        approval_requests
    );
    printer.list(&all, &["request", "state", "asked by", "for", "expires"], |a| {
        vec![
            output::id(&a.name),
            output::state(a.state().as_str_name(), "STATE_"),
            output::id(&a.requester),
            a.summary.clone(),
            output::time(a.expire_time.as_ref()),
        ]
    })
}

/// Votes on an approval request.
pub(crate) async fn vote(client: &Client, printer: Printer, args: VoteArgs, yes: bool) -> anyhow::Result<()> {
    let name = client.full_name(&args.request, &["approvalRequests"])?;
    let mut service = client.policy();
    // The digest of the plan as it is now is sent along: a plan that changes in between is not voted on.
    let seen = service
        .get_approval_request(policy::GetApprovalRequestRequest { name: name.clone() })
        .await?
        .into_inner();
    let (reason, plan_digest) = (args.reason, seen.plan_digest);
    let answer = if yes {
        let request_id = request_id();
        service
            .approve_approval_request(policy::ApproveApprovalRequestRequest {
                name,
                reason,
                plan_digest,
                request_id,
            })
            .await?
    } else {
        let request_id = request_id();
        service
            .deny_approval_request(policy::DenyApprovalRequestRequest {
                name,
                reason,
                plan_digest,
                request_id,
            })
            .await?
    };
    let request = answer.into_inner();
    printer.one(
        &request,
        &[
            ("request", request.name.clone()),
            ("state", output::state(request.state().as_str_name(), "STATE_")),
            ("operation", request.operation.clone()),
        ],
    )
}

/// Lists golden paths.
pub(crate) async fn templates(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let mut service = client.catalog();
    let parent = client.organization()?;
    let all = pages!(
        list.limit,
        |page_size, page_token| service.list_templates(catalog::ListTemplatesRequest {
            parent: parent.clone(),
            page_size,
            page_token,
            filter: list.filter.clone(),
            order_by: list.order_by.clone(),
        }),
        templates
    );
    printer.list(&all, &["template", "latest", "channels", "description"], |t| {
        let mut channels: Vec<String> = t.channels.iter().map(|(c, v)| format!("{c}={v}")).collect();
        channels.sort();
        vec![output::id(&t.name), t.latest_version.clone(), channels.join(" "), t.description.clone()]
    })
}

/// Shows a version of a golden path.
pub(crate) async fn template(client: &Client, printer: Printer, name: String) -> anyhow::Result<()> {
    let version = client
        .catalog()
        .get_template_version(catalog::GetTemplateVersionRequest { name })
        .await?
        .into_inner();
    let schema = version.parameter_schema.as_ref().map(convert::from_struct).unwrap_or_default();
    printer.one(
        &version,
        &[
            ("version", version.name.clone()),
            ("digest", version.digest.clone()),
            ("environments", version.environment_classes.join(", ")),
            ("parameters", serde_json::to_string_pretty(&schema)?),
        ],
    )
}

/// Lists audit records.
pub(crate) async fn audit_records(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let mut service = client.audit();
    let parent = client.organization()?;
    let all = pages!(
        list.limit,
        |page_size, page_token| service.list_audit_records(audit::ListAuditRecordsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
            filter: list.filter.clone(),
            order_by: list.order_by.clone(),
        }),
        audit_records
    );
    printer.list(&all, &["index", "time", "actor", "action", "object", "outcome"], |r| {
        let event = r.event.clone().unwrap_or_default();
        vec![
            r.index.to_string(),
            output::time(event.event_time.as_ref()),
            output::id(&event.actor.unwrap_or_default().reference),
            event.action,
            event.object.unwrap_or_default().name,
            event.outcome.map(|o| if o.code.is_empty() { o.status } else { o.code }).unwrap_or_default(),
        ]
    })
}
