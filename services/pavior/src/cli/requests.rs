//! The API's requests, built from the command line.

use std::time::Duration;

use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_rpc::convert;

use super::args::{DeploySpec, EnvSpec, ProjectSpec};
use super::client::{Client, request_id};
use super::failure::wrong_usage;
use super::parameters;

/// What is to come of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked<'a> {
    /// It is carried out, under the id that was given.
    Do(Option<&'a String>),
    /// Its plan is shown.
    Look,
    /// It is a part of a plan that is kept.
    Part,
}

impl Asked<'_> {
    fn request_id(self) -> String {
        match self {
            Self::Do(Some(id)) => id.clone(),
            Self::Do(None) | Self::Look => request_id(),
            Self::Part => String::new(),
        }
    }
}

/// `web-service` or `web-service@1.0.0` as a version's resource name.
pub(crate) fn template_version(client: &Client, template: &str) -> anyhow::Result<String> {
    if template.starts_with("organizations/") {
        return Ok(template.to_owned());
    }
    let (template, version) = template.split_once('@').unwrap_or((template, "stable"));
    client.full_name(&format!("{template}/{version}"), &["templates", "versions"])
}

/// A project to make.
pub(crate) fn create_project(
    client: &Client,
    spec: &ProjectSpec,
    asked: Asked<'_>,
) -> anyhow::Result<pb::CreateProjectRequest> {
    Ok(pb::CreateProjectRequest {
        parent: client.organization()?,
        project_id: spec.project.clone(),
        project: Some(pb::Project {
            owner: client.full_name(&spec.owner, &["groups"])?,
            template_version: template_version(client, &spec.template)?,
            parameters: parameters::to_struct(&spec.parameters)?,
            ..Default::default()
        }),
        request_id: asked.request_id(),
        validate_only: asked == Asked::Look,
        ..Default::default()
    })
}

/// An environment to make.
pub(crate) fn create_environment(
    client: &Client,
    spec: &EnvSpec,
    asked: Asked<'_>,
) -> anyhow::Result<pb::CreateEnvironmentRequest> {
    let name = client.full_name(&spec.environment, &["projects", "environments"])?;
    let (parent, environment_id) = split(&name)?;
    let ttl = spec.ttl_minutes.map(|m| convert::to_duration(Duration::from_secs(u64::from(m) * 60)));
    Ok(pb::CreateEnvironmentRequest {
        parent,
        environment_id,
        environment: Some(pb::Environment {
            environment_class_id: spec.class.clone(),
            parameters: parameters::to_struct(&spec.parameters)?,
            expiration: ttl.map(pb::environment::Expiration::Ttl),
            ..Default::default()
        }),
        request_id: asked.request_id(),
        validate_only: asked == Asked::Look,
        ..Default::default()
    })
}

/// An environment to take down.
pub(crate) fn delete_environment(
    client: &Client,
    environment: &str,
    asked: Asked<'_>,
) -> anyhow::Result<pb::DeleteEnvironmentRequest> {
    Ok(pb::DeleteEnvironmentRequest {
        name: client.full_name(environment, &["projects", "environments"])?,
        request_id: asked.request_id(),
        validate_only: asked == Asked::Look,
        ..Default::default()
    })
}

/// A deployment to make.
pub(crate) fn create_deployment(
    client: &Client,
    spec: &DeploySpec,
    asked: Asked<'_>,
) -> anyhow::Result<pb::CreateDeploymentRequest> {
    let parent = client.full_name(&spec.environment, &["projects", "environments"])?;
    let run = match (spec.run.as_str(), parent.split_once("/environments/")) {
        ("", _) => String::new(),
        (run, Some((project, _))) if !run.starts_with("organizations/") => {
            let (pipeline, run) = run.split_once('/').unwrap_or(("pipeline", run));
            format!("{project}/pipelines/{pipeline}/runs/{run}")
        }
        (run, _) => run.to_owned(),
    };
    Ok(pb::CreateDeploymentRequest {
        parent,
        deployment: Some(pb::Deployment {
            source: Some(run).filter(|run| !run.is_empty()).map(pb::deployment::Source::SourceRun),
            ..Default::default()
        }),
        request_id: asked.request_id(),
        validate_only: asked == Asked::Look,
        ..Default::default()
    })
}

/// The one deployment that runs in an environment, by resource name.
pub(crate) async fn running_deployment(client: &Client, environment: &str) -> anyhow::Result<String> {
    let request = pb::GetEnvironmentRequest { name: environment.to_owned() };
    let running = client.projects().get_environment(request).await?.into_inner().active_deployments;
    match running.as_slice() {
        [only] => Ok(only.clone()),
        [] => anyhow::bail!("nothing runs in `{environment}`: deploy to it first"),
        several => {
            anyhow::bail!("several deployments run in `{environment}`, name one: {}", several.join(", "))
        }
    }
}

/// Parent and id of a full name.
pub(crate) fn split(name: &str) -> anyhow::Result<(String, String)> {
    let name =
        pavior_core::name::ResourceName::parse(name).map_err(|error| wrong_usage(error.to_string()))?;
    let parent = name.parent().map(|p| p.as_str().to_owned()).unwrap_or_default();
    Ok((parent, name.id().to_owned()))
}

/// A project to take down.
pub(crate) fn delete_project(
    client: &Client,
    project: &str,
    force: bool,
    asked: Asked<'_>,
) -> anyhow::Result<pb::DeleteProjectRequest> {
    Ok(pb::DeleteProjectRequest {
        name: client.full_name(project, &["projects"])?,
        force,
        request_id: asked.request_id(),
        validate_only: asked == Asked::Look,
        ..Default::default()
    })
}
