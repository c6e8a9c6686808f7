//! What a command line asks provisioning for, as a request of the API. Commands carry it out, plans show or keep it.

use std::time::Duration;

use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::environment::Expiration;
use pavior_proto::pavior::provisioning::v1::plan::intent::Request;
use pavior_rpc::convert;
use tonic::{Response, Status};

use super::args::{
    DeploySpec, EnvChange, EnvRemoval, EnvSpec, OrphanRemoval, ProjectRemoval, ProjectRepair, ProjectSpec,
    PromoteSpec, RunSpec,
};
use super::client::{Client, request_id};
use super::exit::Exit;
use super::failure::{Ended, wrong_usage};
use super::parameters;

/// What a request is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is carried out, under this id.
    Execute(String),
    /// Its plan is shown, and nothing is kept.
    Preview,
    /// It is the intent of a plan that is kept: the id is that of the plan's own request.
    Keep,
}

impl Purpose {
    /// The fields `request_id` and `validate_only`.
    fn fields(&self) -> (String, bool) {
        match self {
            Self::Execute(id) => (id.clone(), false),
            Self::Preview => (request_id(), true),
            Self::Keep => (String::new(), false),
        }
    }
}

/// What makes a request out of a command line.
pub(super) trait Intent {
    /// The request; some have to look first at what there is.
    async fn request(&self, client: &Client, purpose: &Purpose) -> anyhow::Result<Request>;
}

/// Sends a request to the service that answers it.
pub(super) async fn send(client: &Client, request: Request) -> Result<Response<Operation>, Status> {
    let (mut projects, mut deployments) = (client.projects(), client.deployments());
    match request {
        Request::CreateProject(request) => projects.create_project(request).await,
        Request::DeleteProject(request) => projects.delete_project(request).await,
        Request::CreateEnvironment(request) => projects.create_environment(request).await,
        Request::UpdateEnvironment(request) => projects.update_environment(request).await,
        Request::DeleteEnvironment(request) => projects.delete_environment(request).await,
        Request::RunPipeline(request) => client.pipelines().run_pipeline(request).await,
        Request::CreateDeployment(request) => deployments.create_deployment(request).await,
        Request::PromoteDeployment(request) => deployments.promote_deployment(request).await,
        Request::RepairProject(request) => projects.repair_project(request).await,
        Request::DeleteOrphan(request) => projects.delete_orphan(request).await,
    }
}

const PROJECT: &[&str] = &["projects"];
const ENVIRONMENT: &[&str] = &["projects", "environments"];
const DEPLOYMENT: &[&str] = &["projects", "environments", "deployments"];

/// `web-service` or `web-service@1.0.0` as a version's resource name.
pub(crate) fn template_version(client: &Client, template: &str) -> anyhow::Result<String> {
    if template.starts_with("organizations/") {
        return Ok(template.to_owned());
    }
    let (template, version) = template.split_once('@').unwrap_or((template, "stable"));
    client.full_name(&format!("{template}/{version}"), &["templates", "versions"])
}

impl Intent for ProjectSpec {
    async fn request(&self, client: &Client, purpose: &Purpose) -> anyhow::Result<Request> {
        let (request_id, validate_only) = purpose.fields();
        Ok(Request::CreateProject(pb::CreateProjectRequest {
            parent: client.organization()?,
            project_id: self.project.clone(),
            project: Some(pb::Project {
                owner: client.full_name(&self.owner, &["groups"])?,
                template_version: template_version(client, &self.template)?,
                parameters: parameters::to_struct(&self.parameters)?,
                ..Default::default()
            }),
            request_id,
            validate_only,
            ..Default::default()
        }))
    }
}

impl Intent for ProjectRemoval {
    async fn request(&self, client: &Client, purpose: &Purpose) -> anyhow::Result<Request> {
        let (request_id, validate_only) = purpose.fields();
        Ok(Request::DeleteProject(pb::DeleteProjectRequest {
            name: client.full_name(&self.project, PROJECT)?,
            force: self.force,
            request_id,
            validate_only,
            ..Default::default()
        }))
    }
}

impl Intent for ProjectRepair {
    async fn request(&self, client: &Client, purpose: &Purpose) -> anyhow::Result<Request> {
        let (request_id, validate_only) = purpose.fields();
        Ok(Request::RepairProject(pb::RepairProjectRequest {
            name: client.full_name(&self.project, PROJECT)?,
            request_id,
            validate_only,
            ..Default::default()
        }))
    }
}

impl Intent for EnvSpec {
    async fn request(&self, client: &Client, purpose: &Purpose) -> anyhow::Result<Request> {
        let (request_id, validate_only) = purpose.fields();
        let (parent, environment_id) = split(&client.full_name(&self.environment, ENVIRONMENT)?)?;
        Ok(Request::CreateEnvironment(pb::CreateEnvironmentRequest {
            parent,
            environment_id,
            environment: Some(pb::Environment {
                environment_class_id: self.class.clone(),
                parameters: parameters::to_struct(&self.parameters)?,
                expiration: self.ttl_minutes.map(ttl),
                ..Default::default()
            }),
            request_id,
            validate_only,
            ..Default::default()
        }))
    }
}

fn ttl(minutes: u32) -> Expiration {
    Expiration::Ttl(convert::to_duration(Duration::from_secs(u64::from(minutes) * 60)))
}

impl Intent for EnvChange {
    /// Single parameters are changed, where the API has all of them as one field: they are read first, and the etag
    /// refuses to write over somebody else's change in between.
    async fn request(&self, client: &Client, purpose: &Purpose) -> anyhow::Result<Request> {
        let (request_id, validate_only) = purpose.fields();
        let name = client.full_name(&self.environment, ENVIRONMENT)?;
        let mut environment = pb::Environment { name: name.clone(), ..Default::default() };
        let mut paths = Vec::new();
        if let Some(display_name) = &self.display_name {
            environment.display_name.clone_from(display_name);
            paths.push("display_name");
        }
        if !(self.parameters.is_empty() && self.unset.is_empty()) {
            let current = client
                .projects()
                .get_environment(pb::GetEnvironmentRequest { name, ..Default::default() })
                .await?;
            let current = current.into_inner();
            let merged = parameters::changed(current.parameters.as_ref(), &self.parameters, &self.unset)?;
            environment.parameters = Some(merged);
            environment.etag = current.etag;
            paths.push("parameters");
        }
        if self.ttl_minutes.is_some() || self.no_expiry {
            environment.expiration = self.ttl_minutes.map(ttl);
            paths.push("ttl");
        }
        let paths: Vec<String> = paths.into_iter().map(str::to_owned).collect();
        Ok(Request::UpdateEnvironment(pb::UpdateEnvironmentRequest {
            environment: Some(environment),
            // Without a path, what is recorded is asked for once more.
            update_mask: (!paths.is_empty()).then_some(prost_types::FieldMask { paths }),
            request_id,
            validate_only,
            ..Default::default()
        }))
    }
}

impl Intent for EnvRemoval {
    async fn request(&self, client: &Client, purpose: &Purpose) -> anyhow::Result<Request> {
        let (request_id, validate_only) = purpose.fields();
        Ok(Request::DeleteEnvironment(pb::DeleteEnvironmentRequest {
            name: client.full_name(&self.environment, ENVIRONMENT)?,
            request_id,
            validate_only,
            ..Default::default()
        }))
    }
}

impl Intent for OrphanRemoval {
    async fn request(&self, client: &Client, purpose: &Purpose) -> anyhow::Result<Request> {
        let (request_id, validate_only) = purpose.fields();
        Ok(Request::DeleteOrphan(pb::DeleteOrphanRequest {
            parent: client.organization()?,
            driver_id: self.driver.clone(),
            external_id: self.external_id.clone(),
            request_id,
            validate_only,
            ..Default::default()
        }))
    }
}

impl Intent for RunSpec {
    async fn request(&self, client: &Client, purpose: &Purpose) -> anyhow::Result<Request> {
        let (request_id, validate_only) = purpose.fields();
        let pipeline = format!("{}/{}", self.project, self.pipeline);
        Ok(Request::RunPipeline(pb::RunPipelineRequest {
            name: client.full_name(&pipeline, &["projects", "pipelines"])?,
            revision: self.revision.clone(),
            request_id,
            validate_only,
            ..Default::default()
        }))
    }
}

impl Intent for DeploySpec {
    async fn request(&self, client: &Client, purpose: &Purpose) -> anyhow::Result<Request> {
        let (request_id, validate_only) = purpose.fields();
        let parent = client.full_name(&self.environment, ENVIRONMENT)?;
        let run = match (self.run.as_str(), parent.split_once("/environments/")) {
            ("", _) => None,
            (run, Some((project, _))) if !run.starts_with("organizations/") => {
                let (pipeline, run) = run.split_once('/').unwrap_or(("pipeline", run));
                Some(format!("{project}/pipelines/{pipeline}/runs/{run}"))
            }
            (run, _) => Some(run.to_owned()),
        };
        Ok(Request::CreateDeployment(pb::CreateDeploymentRequest {
            parent,
            deployment: Some(pb::Deployment {
                source: run.map(pb::deployment::Source::SourceRun),
                ..Default::default()
            }),
            request_id,
            validate_only,
            ..Default::default()
        }))
    }
}

impl Intent for PromoteSpec {
    async fn request(&self, client: &Client, purpose: &Purpose) -> anyhow::Result<Request> {
        let (request_id, validate_only) = purpose.fields();
        let named = |id: &str, parts| client.full_name(&format!("{}/{id}", self.project), parts);
        let name = match self.from.contains('/') {
            true => named(&self.from, DEPLOYMENT)?,
            false => running_deployment(client, &named(&self.from, ENVIRONMENT)?).await?,
        };
        Ok(Request::PromoteDeployment(pb::PromoteDeploymentRequest {
            name,
            environment: named(&self.to, ENVIRONMENT)?,
            request_id,
            validate_only,
            ..Default::default()
        }))
    }
}

/// The one deployment that runs in an environment, by resource name.
pub(crate) async fn running_deployment(client: &Client, environment: &str) -> anyhow::Result<String> {
    let request = pb::GetEnvironmentRequest { name: environment.to_owned(), ..Default::default() };
    let running = client.projects().get_environment(request).await?.into_inner().active_deployments;
    match running.as_slice() {
        [only] => Ok(only.clone()),
        [] => {
            let message = format!("nothing runs in `{environment}`: deploy to it first");
            Err(Ended { message, exit: Exit::Conflict }.into())
        }
        several => {
            let all = several.join(", ");
            Err(wrong_usage(format!("several deployments run in `{environment}`, name one: {all}")))
        }
    }
}

/// Parent and id of a full name.
fn split(name: &str) -> anyhow::Result<(String, String)> {
    let name =
        pavior_core::name::ResourceName::parse(name).map_err(|error| wrong_usage(error.to_string()))?;
    let parent = name.parent().map(|p| p.as_str().to_owned()).unwrap_or_default();
    Ok((parent, name.id().to_owned()))
}
