//! Commands that list and show.

use anyhow::Context as _;
use pavior_proto::google::longrunning::{
    CancelOperationRequest, GetOperationRequest, ListOperationsRequest, Operation,
};
use pavior_proto::google::rpc::Code;
use pavior_proto::pavior::audit::v1 as audit;
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_proto::pavior::policy::v1 as policy;
use pavior_proto::pavior::policy::v1::approval::Choice;
use pavior_proto::pavior::provisioning::v1 as pb;
use serde_json::Value;

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
            if $token.is_empty() {
                break all;
            }
            if all.len() >= $limit {
                eprintln!("there are more than {}; --limit shows more", all.len());
                break all;
            }
        }
    }};
}
pub(super) use pages;

/// Lists projects.
pub(crate) async fn projects(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let mut projects = client.projects();
    let parent = client.organization()?;
    let all = pages!(
        list.limit,
        |page_size, page_token| projects.list_projects(pb::ListProjectsRequest {
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
    let mut projects = client.projects();
    let parent = client.full_name(project, &["projects"])?;
    let all = pages!(
        list.limit,
        |page_size, page_token| projects.list_environments(pb::ListEnvironmentsRequest {
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
        e.environment_class_id.clone(),
        output::state(e.state().as_str_name(), "STATE_"),
        urls(e),
        expires(e),
    ]
}

/// Environments as a table.
pub(crate) fn environment_table(environments: &[pb::Environment]) -> String {
    output::table(ENVIRONMENT_HEADER, environments.iter().map(environment_row))
}

/// Where its workloads answer.
pub(crate) fn urls(environment: &pb::Environment) -> String {
    environment.endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect::<Vec<_>>().join(", ")
}

/// When it is taken down; empty for never.
fn expires(environment: &pb::Environment) -> String {
    match &environment.expiration {
        Some(pb::environment::Expiration::ExpireTime(time)) => output::time(Some(time)),
        _ => String::new(),
    }
}

/// Shows an environment and its resources.
pub(crate) async fn environment(client: &Client, printer: Printer, environment: &str) -> anyhow::Result<()> {
    let name = client.full_name(environment, &["projects", "environments"])?;
    let (mut one, mut two) = (client.projects(), client.projects());
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
            ("class", environment.environment_class_id.clone()),
            ("state", output::state(environment.state().as_str_name(), "STATE_")),
            ("url", urls(&environment)),
            ("deployment", environment.active_deployments.join(", ")),
            ("operation", environment.active_operation.clone()),
            ("expires", expires(&environment)),
        ],
    )?;
    if printer.is_json() {
        return Ok(());
    }
    output::say("")?;
    printer.list(&resources.into_inner().resources, &["resource", "type", "driver", "state"], |r| {
        vec![
            output::id(&r.name),
            output::id(&r.resource_type),
            r.driver_id.clone(),
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
                progress::follow_interruptibly(client, &full(&operation)?, Until::End, printer.is_json())
                    .await?;
            show_operation(printer, &operation)?;
            progress::conclude(&operation)
        }
        OpCommand::Cancel { operation } => cancel(client, printer, full(&operation)?).await,
        OpCommand::Retry { operation } => {
            let request = pb::RetryOperationRequest { name: full(&operation)?, request_id: request_id() };
            let operation = client.operation_service().retry_operation(request).await?.into_inner();
            // It may end at once, or wait for people: that it was taken up says nothing of either.
            let until = Until::Approval;
            let operation =
                progress::follow_interruptibly(client, &operation.name, until, printer.is_json()).await?;
            show_operation(printer, &operation)?;
            progress::conclude(&operation)
        }
    }
}

async fn cancel(client: &Client, printer: Printer, name: String) -> anyhow::Result<()> {
    let mut operations = client.operations();
    operations.cancel_operation(CancelOperationRequest { name: name.clone() }).await?;
    let operation = operations.get_operation(GetOperationRequest { name }).await?.into_inner();
    let state = output::state(progress::metadata(&operation)?.state().as_str_name(), "STATE_");
    printer.one(&operation, &[("operation", operation.name.clone()), ("state", state)])?;
    if operation.done {
        eprintln!("it is done, as its state says");
    } else {
        eprintln!("asked to stop; follow it with: pavior op watch {}", output::id(&operation.name));
    }
    Ok(())
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
            output::state(metadata.state().as_str_name(), "STATE_"),
            output::time(metadata.create_time.as_ref()),
            metadata.action.clone(),
            output::short(&metadata.target),
            progress::outcome(operation),
        ]
    });
    printer.rows(&["operation", "state", "created", "action", "target", "outcome"], rows)
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
            ("outcome", progress::outcome(operation)),
            ("approval", metadata.approval.clone()),
            ("created", output::time(metadata.create_time.as_ref())),
            ("ended", output::time(metadata.end_time.as_ref())),
        ],
    )?;
    if printer.is_json() {
        return Ok(());
    }
    let rows = metadata.steps.iter().map(|step| {
        vec![
            step.step_id.clone(),
            output::state(step.action().as_str_name(), "ACTION_"),
            step.driver_id.clone(),
            output::state(step.state().as_str_name(), "STATE_"),
            step.attempt_count.to_string(),
            step.error.as_ref().map(|e| e.message.clone()).unwrap_or_default(),
        ]
    });
    output::say("")?;
    printer.rows(&["step", "action", "driver", "state", "attempt", "error"], rows)
}

/// Lists approvals.
pub(crate) async fn approvals(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let mut service = client.approvals();
    let parent = client.organization()?;
    let all = pages!(
        list.limit,
        |page_size, page_token| service.list_approvals(policy::ListApprovalsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
            filter: list.filter.clone(),
            order_by: list.order_by.clone(),
        }),
        approvals
    );
    printer.list(&all, &["approval", "state", "asked by", "expires", "for"], |a| {
        vec![
            output::id(&a.name),
            output::state(a.state().as_str_name(), "STATE_"),
            output::id(&a.requester),
            output::time(a.expire_time.as_ref()),
            a.summary.clone(),
        ]
    })
}

/// Votes on an approval.
pub(crate) async fn vote(
    client: &Client,
    printer: Printer,
    args: VoteArgs,
    choice: Choice,
) -> anyhow::Result<()> {
    let name = client.full_name(&args.approval, &["approvals"])?;
    let mut service = client.approvals();
    // The digest of the plan as it is now is sent along: a plan that changes in between is not voted on.
    let seen = service.get_approval(policy::GetApprovalRequest { name: name.clone() }).await?.into_inner();
    let (reason, plan_digest, request_id) = (args.reason, seen.plan_digest, request_id());
    let answer = match choice {
        Choice::Deny => {
            let no = policy::DenyApprovalRequest { name, reason, plan_digest, request_id };
            service.deny_approval(no).await?
        }
        Choice::Approve | Choice::Unspecified => {
            let yes = policy::ApproveApprovalRequest { name, reason, plan_digest, request_id };
            service.approve_approval(yes).await?
        }
    };
    let approval = answer.into_inner();
    printer.one(
        &approval,
        &[
            ("approval", approval.name.clone()),
            ("state", output::state(approval.state().as_str_name(), "STATE_")),
            ("missing", missing(&approval)),
            ("operation", approval.operation.clone()),
        ],
    )
}

/// Whose agreement is still waited for.
fn missing(approval: &policy::Approval) -> String {
    if approval.state() != policy::approval::State::Pending {
        return String::new();
    }
    let given = approval.votes.iter().filter(|vote| vote.choice() == Choice::Approve).count();
    let given = i32::try_from(given).unwrap_or(i32::MAX);
    let of = |group: &str| output::within(group);
    match approval.requirements.as_slice() {
        [only] => {
            let more = only.quorum.saturating_sub(given).max(1);
            format!("{more} more of {} ({given} of {} given)", of(&only.group), only.quorum)
        }
        // Who counts for which of them, policy knows.
        all => {
            let all: Vec<_> = all.iter().map(|one| format!("{} of {}", one.quorum, of(&one.group))).collect();
            format!("{given} given; wanted are {}", all.join(", "))
        }
    }
}

/// Lists golden paths.
pub(crate) async fn templates(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let mut service = client.templates();
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
        let mut channels: Vec<String> =
            t.channels.iter().map(|(c, at)| format!("{c}={}", output::id(&at.template_version))).collect();
        channels.sort();
        vec![
            output::id(&t.name),
            output::id(&t.latest_version).to_owned(),
            channels.join(" "),
            t.description.clone(),
        ]
    })
}

/// Shows a version of a golden path.
pub(crate) async fn template(client: &Client, printer: Printer, name: String) -> anyhow::Result<()> {
    let version = client
        .templates()
        .get_template_version(catalog::GetTemplateVersionRequest { name })
        .await?
        .into_inner();
    printer.one(
        &version,
        &[
            ("version", version.name.clone()),
            ("digest", version.digest.clone()),
            ("environments", version.environment_class_ids.join(", ")),
        ],
    )?;
    if printer.is_json() {
        return Ok(());
    }
    // The text has the order of the document, which the value has not.
    let schema = match version.parameter_schema_json.as_str() {
        "" => Value::Null,
        text => serde_json::from_str(text).context("the schema of the parameters is not JSON")?,
    };
    let rows = parameter_rows(&schema);
    if rows.is_empty() {
        return output::say("parameters    none");
    }
    output::say("")?;
    printer.rows(&["parameter", "type", "default", "values", "description"], rows)
}

/// The parameters at the top of a schema; what is nested is in the JSON form.
fn parameter_rows(schema: &Value) -> Vec<Vec<String>> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let required = list(schema.get("required"));
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let row = |(name, property): (&String, &Value)| {
        let default = match property.get("default") {
            Some(default) => text(default),
            None if required.iter().any(|r| r.as_str() == Some(name)) => "(required)".to_owned(),
            None => String::new(),
        };
        vec![
            name.clone(),
            property.get("type").map(text).unwrap_or_default(),
            default,
            list(property.get("enum")).iter().map(text).collect::<Vec<_>>().join(", "),
            property.get("description").map(text).unwrap_or_default(),
        ]
    };
    properties.iter().map(row).collect()
}

/// Lists audit records.
pub(crate) async fn audit_records(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let mut service = client.audit();
    let parent = client.organization()?;
    let order_by = if list.order_by.is_empty() { "index desc".to_owned() } else { list.order_by.clone() };
    let all = pages!(
        list.limit,
        |page_size, page_token| service.list_audit_records(audit::ListAuditRecordsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
            filter: list.filter.clone(),
            order_by: order_by.clone(),
        }),
        audit_records
    );
    printer.list(&all, &["index", "time", "principal", "outcome", "action", "target"], |r| {
        let event = r.event.clone().unwrap_or_default();
        let target = event.target.as_ref().map(|target| target.name.as_str()).unwrap_or_default();
        vec![
            r.index.to_string(),
            output::time(event.event_time.as_ref()),
            who(&event.principal.unwrap_or_default()),
            event.outcome.map(|outcome| self::outcome(&outcome)).unwrap_or_default(),
            event.action,
            output::within(target),
        ]
    })
}

/// Who acted, and for whom, if for somebody else.
pub(crate) fn who(principal: &audit::audit_event::PrincipalReference) -> String {
    let name = output::id(&principal.name);
    match principal.on_behalf_of.as_str() {
        "" => name,
        person => format!("{name} for {}", output::id(person)),
    }
}

/// How it ended, in a word: what was only planned or asked for is not taken for done.
pub(crate) fn outcome(outcome: &audit::audit_event::Outcome) -> String {
    match outcome.code() {
        Code::Ok => outcome.status().as_str_name().trim_start_matches("STATUS_").to_owned(),
        code => code.as_str_name().to_owned(),
    }
}
