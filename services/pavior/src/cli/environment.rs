//! Commands about environments and resources.

use pavior_proto::pavior::provisioning::v1 as pb;

use super::args::{ALL, EnvCommand, ListArgs, ResourceCommand};
use super::client::Client;
use super::operation;
use super::output::{self, Printer};
use super::page::list_all;

/// `pavior env`.
pub(super) async fn environment(
    client: &Client,
    printer: Printer,
    command: EnvCommand,
) -> anyhow::Result<()> {
    match command {
        EnvCommand::Create(asked) => operation::execute(client, printer, asked).await,
        EnvCommand::Update(asked) => operation::execute(client, printer, asked).await,
        EnvCommand::Delete(asked) => operation::execute(client, printer, asked).await,
        EnvCommand::List { project, list } => environments(client, printer, &project, &list).await,
        EnvCommand::Show { environment } => show(client, printer, &environment).await,
    }
}

/// Lists the environments of a project.
async fn environments(
    client: &Client,
    printer: Printer,
    project: &str,
    list: &ListArgs,
) -> anyhow::Result<()> {
    let parent = client.full_name(project, &["projects"])?;
    let all = list_all!(
        list,
        parent,
        client.projects(),
        list_environments,
        pb::ListEnvironmentsRequest,
        environments
    );
    printer.list(&all, ENVIRONMENT_HEADER, |environment| {
        among_all(&environment.name, project, environment_row(environment))
    })
}

/// A row that begins with an id, which says too little where those of several parents are listed.
fn among_all(name: &str, parent: &str, mut row: Vec<String>) -> Vec<String> {
    let several = parent.split('/').any(|id| id == ALL);
    if let Some(first) = row.first_mut().filter(|_| several) {
        *first = output::below_project(name);
    }
    row
}

/// Lists the deployments of an environment, of a project, or of all projects.
pub(super) async fn deployments(
    client: &Client,
    printer: Printer,
    environment: &str,
    list: &ListArgs,
) -> anyhow::Result<()> {
    let environment =
        if environment.contains('/') { environment.to_owned() } else { format!("{environment}/{ALL}") };
    let parent = client.full_name(&environment, &["projects", "environments"])?;
    let all = list_all!(
        list,
        parent,
        client.deployments(),
        list_deployments,
        pb::ListDeploymentsRequest,
        deployments
    );
    printer.list(&all, &["deployment", "state", "commit", "created", "url"], |deployment| {
        vec![
            output::below_project(&deployment.name),
            output::state(deployment.state().as_str_name(), "STATE_"),
            deployment.artifact.as_ref().map(|artifact| artifact.commit.clone()).unwrap_or_default(),
            output::time(deployment.create_time.as_ref()),
            deployment.url.clone(),
        ]
    })
}

const ENVIRONMENT_HEADER: &[&str] = &["environment", "class", "state", "url", "expires"];

fn environment_row(e: &pb::Environment) -> Vec<String> {
    vec![
        output::id(&e.name),
        e.environment_class_id.clone(),
        output::state(e.state().as_str_name(), "STATE_"),
        output::urls(e),
        expires(e),
    ]
}

/// Environments as a table.
pub(crate) fn environment_table(environments: &[pb::Environment]) -> String {
    output::table(ENVIRONMENT_HEADER, environments.iter().map(environment_row))
}

/// When it is taken down; empty for never.
fn expires(environment: &pb::Environment) -> String {
    match &environment.expiration {
        Some(pb::environment::Expiration::ExpireTime(time)) => output::time(Some(time)),
        _ => String::new(),
    }
}

/// Shows an environment and its resources.
async fn show(client: &Client, printer: Printer, environment: &str) -> anyhow::Result<()> {
    let name = client.full_name(environment, &["projects", "environments"])?;
    let (mut one, mut two) = (client.projects(), client.projects());
    let request = pb::ListResourcesRequest { parent: name.clone(), page_size: 1000, ..Default::default() };
    let (environment, resources) = tokio::try_join!(
        one.get_environment(pb::GetEnvironmentRequest { name, ..Default::default() }),
        two.list_resources(request)
    )?;
    let environment = environment.into_inner();
    printer.one(
        &environment,
        &[
            ("environment", environment.name.clone()),
            ("class", environment.environment_class_id.clone()),
            ("state", output::state(environment.state().as_str_name(), "STATE_")),
            ("url", output::urls(&environment)),
            ("deployment", environment.active_deployments.join(", ")),
            ("operation", environment.active_operation.clone()),
            ("expires", expires(&environment)),
        ],
    )?;
    if printer.is_json() {
        return Ok(());
    }
    output::say("")?;
    printer.list(&resources.into_inner().resources, RESOURCE_HEADER, resource_row)
}

const RESOURCE_HEADER: &[&str] = &["resource", "type", "driver", "state"];

fn resource_row(resource: &pb::Resource) -> Vec<String> {
    vec![
        output::id(&resource.name),
        output::id(&resource.resource_type),
        resource.driver_id.clone(),
        output::state(resource.state().as_str_name(), "STATE_"),
    ]
}

/// `pavior resource`.
pub(super) async fn resource(
    client: &Client,
    printer: Printer,
    command: ResourceCommand,
) -> anyhow::Result<()> {
    match command {
        ResourceCommand::List { parent, list } => {
            let collections: &[&str] = match parent.contains('/') {
                true => &["projects", "environments"],
                false => &["projects"],
            };
            let all = list_all!(
                list,
                client.full_name(&parent, collections)?,
                client.projects(),
                list_resources,
                pb::ListResourcesRequest,
                resources
            );
            printer.list(&all, RESOURCE_HEADER, |resource| {
                among_all(&resource.name, &parent, resource_row(resource))
            })
        }
        ResourceCommand::DeleteOrphan(asked) => operation::execute(client, printer, asked).await,
        ResourceCommand::Show { resource } => show_resource(client, printer, &resource).await,
    }
}

async fn show_resource(client: &Client, printer: Printer, resource: &str) -> anyhow::Result<()> {
    let collections: &[&str] = match resource.split('/').count() {
        3 => &["projects", "environments", "resources"],
        _ => &["projects", "resources"],
    };
    let name = client.full_name(resource, collections)?;
    let found = client
        .projects()
        .get_resource(pb::GetResourceRequest { name, ..Default::default() })
        .await?
        .into_inner();
    let outputs = found.outputs.as_ref().map(pavior_rpc::convert::from_struct).unwrap_or_default();
    let mut pairs = vec![
        ("resource", found.name.clone()),
        ("type", output::id(&found.resource_type)),
        ("driver", found.driver_id.clone()),
        ("state", output::state(found.state().as_str_name(), "STATE_")),
    ];
    for (key, value) in outputs.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        pairs.push((key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
    }
    printer.one(&found, &pairs)
}
