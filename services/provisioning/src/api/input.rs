//! Requests as use cases take them.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_core::digest::is_sha256_digest;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::shape::Request;
use pavior_rpc::{Problem, Violations, convert, digest, mask};
use serde_json::{Value, json};

use super::Api;
use crate::app::deployments::Source;
use crate::app::environments::{Expiration, WantedEnvironment};
use crate::app::projects::WantedProject;
use crate::app::{Answer, App, Ask, Goal};
use crate::domain::names;
use crate::error::Result;

/// A change as it came in.
pub(crate) fn ask<R: Request>(permit: Permit, request: &R) -> Ask {
    Ask {
        permit,
        action: R::ACTION,
        request_id: request.request_id().to_owned(),
        method: R::PATH.to_owned(),
        hash: digest::of(request),
        goal: if request.validate_only() { Goal::Look } else { Goal::Do },
        plan_digest: request.plan_digest().to_owned(),
        due: None,
    }
}

/// Refuses a digest of a plan that no plan can have.
pub(crate) fn check_digest(ask: &Ask) -> Result<()> {
    if ask.plan_digest.is_empty() || is_sha256_digest(&ask.plan_digest) {
        return Ok(());
    }
    let why = "must be the digest of a plan: `sha256:` and 64 lower-case hexadecimal digits";
    Err(Problem::invalid_field("plan_digest", Fault::Pattern, why).into())
}

fn parameters(value: Option<&prost_types::Struct>) -> Value {
    value.map_or_else(|| json!({}), convert::from_struct)
}

/// The project that is wanted.
pub(crate) fn project(request: pb::CreateProjectRequest) -> WantedProject {
    let pb::CreateProjectRequest { parent, project_id, project, .. } = request;
    let project = project.unwrap_or_default();
    WantedProject {
        parent,
        id: project_id,
        display_name: project.display_name,
        owner: project.owner,
        template_version: project.template_version,
        parameters: parameters(project.parameters.as_ref()),
        labels: project.labels,
    }
}

/// The environment that is wanted.
pub(crate) fn environment(
    environment: Option<&pb::Environment>,
    violations: &mut Violations,
) -> WantedEnvironment {
    let environment = environment.cloned().unwrap_or_default();
    let expiration = environment.expiration.as_ref().and_then(|expiration| match expiration {
        pb::environment::Expiration::ExpireTime(time) => violations
            .check("environment.expire_time", Fault::OutOfRange, convert::from_timestamp(time))
            .map(Expiration::At),
        pb::environment::Expiration::Ttl(ttl) => violations
            .check("environment.ttl", Fault::OutOfRange, convert::from_duration(ttl))
            .map(Expiration::After),
    });
    WantedEnvironment {
        display_name: environment.display_name,
        class: environment.environment_class_id,
        parameters: parameters(environment.parameters.as_ref()),
        expiration,
    }
}

/// Where the artifact of a deployment is to come from.
pub(crate) fn source(deployment: Option<&pb::Deployment>) -> Source {
    match deployment.and_then(|deployment| deployment.source.clone()) {
        Some(pb::deployment::Source::SourceRun(run)) => Source::Run(run),
        Some(pb::deployment::Source::SourceDeployment(name)) => Source::Deployment(name),
        None => Source::Newest,
    }
}

impl Api {
    /// Merges the update into what is there, and hands the result on.
    pub(crate) async fn update(&self, ask: &Ask, request: pb::UpdateEnvironmentRequest) -> Result<Answer> {
        let patch = request.environment.unwrap_or_default();
        App::name(&ask.permit, ask.action, "environment.name", &patch.name, names::ENVIRONMENT)?;
        let row = self.app.db.environment(&ask.permit, &patch.name).await?;
        let view = self.app.db.environment_view(&ask.permit, row.clone()).await?;
        let current = super::convert::environment(view);
        let mut merged = mask::merge(&current, &patch, request.update_mask.as_ref())?;
        // Both fields say one thing: a mask that names either names the other.
        let paths = request.update_mask.iter().flat_map(|mask| &mask.paths);
        if paths.into_iter().any(|path| matches!(path.as_str(), "ttl" | "expire_time")) {
            merged.expiration = patch.expiration;
        }
        let mut violations = Violations::new();
        let wanted = environment(Some(&merged), &mut violations);
        violations.into_result()?;
        self.app.update_environment(ask, row, &patch.etag, wanted).await
    }
}
