//! Commands about projects.

use std::collections::BTreeMap;

use pavior_proto::pavior::platform::v1 as platform;
use pavior_proto::pavior::provisioning::v1 as pb;

use super::args::{ListArgs, ProjectChange, ProjectCommand, RequestArgs};
use super::client::Client;
use super::failure::wrong_usage;
use super::output::{self, Printer};
use super::page::list_all;
use super::retry::Patience;
use super::{environment, operation};

/// Lists projects.
async fn projects(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let parent = client.organization()?;
    let all = list_all!(list, parent, client.projects(), list_projects, pb::ListProjectsRequest, projects);
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

/// `pavior project`.
pub(super) async fn project(
    client: &Client,
    printer: Printer,
    command: ProjectCommand,
) -> anyhow::Result<()> {
    match command {
        ProjectCommand::Create(asked) => operation::execute(client, printer, asked).await,
        ProjectCommand::Repair(asked) => operation::execute(client, printer, asked).await,
        ProjectCommand::Delete(asked) => operation::execute(client, printer, asked).await,
        ProjectCommand::Update { change, request } => update(client, printer, change, &request).await,
        ProjectCommand::List(list) => projects(client, printer, &list).await,
        ProjectCommand::Show { project } => show_project(client, printer, &project).await,
    }
}

/// Changes what is said about a project. Labels are changed one by one, whatever others do to the rest.
async fn update(
    client: &Client,
    printer: Printer,
    change: ProjectChange,
    request: &RequestArgs,
) -> anyhow::Result<()> {
    let ProjectChange { project, display_name, labels, unset } = change;
    let mut project = pb::Project { name: client.full_name(&project, &["projects"])?, ..Default::default() };
    let mut paths = Vec::new();
    if let Some(display_name) = display_name {
        project.display_name = display_name;
        paths.push("display_name".to_owned());
    }
    for label in &labels {
        let (key, value) = label
            .split_once('=')
            .ok_or_else(|| wrong_usage(format!("--label {label}: is not of the form KEY=VALUE")))?;
        project.labels.insert(key.to_owned(), value.to_owned());
    }
    if let Some(both) = unset.iter().find(|key| project.labels.contains_key(*key)) {
        return Err(wrong_usage(format!("--unset-label {both}: the same label is set by --label")));
    }
    let keys = project.labels.keys().chain(&unset);
    paths.extend(keys.map(|key| format!("labels.`{}`", key.replace('`', "``"))));
    // Without a path, every field that is set would be meant.
    if paths.is_empty() {
        return Err(wrong_usage("nothing is to be changed: give --display-name, --label or --unset-label"));
    }
    let request = pb::UpdateProjectRequest {
        project: Some(project),
        update_mask: Some(prost_types::FieldMask { paths }),
        request_id: request.id(),
        validate_only: false,
    };
    // The request has an id: made again, it has the first answer.
    let call = || async { client.projects().update_project(request.clone()).await };
    let project = Patience::new().call(call).await?.into_inner();
    let labels: BTreeMap<_, _> = project.labels.iter().collect();
    let labels: Vec<String> = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    printer.one(
        &project,
        &[
            ("project", project.name.clone()),
            ("display name", project.display_name.clone()),
            ("labels", labels.join("\n")),
        ],
    )
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
        output::say(&format!("\n{}", environment::environment_table(&overview.environments)))?;
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
