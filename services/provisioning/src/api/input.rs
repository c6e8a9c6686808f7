//! Requests as use cases take them.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::shape::Request;
use pavior_rpc::{Violations, convert, digest, mask, validate};
use serde_json::{Value, json};

use super::Api;
use crate::app::deployment::Source;
use crate::app::environment::{Expiration, WantedEnvironment};
use crate::app::project::WantedProject;
use crate::app::{Answer, App, ChangeContext, Goal};
use crate::domain::names;
use crate::error::Result;

/// A change as it came in.
pub(crate) fn context<R: Request>(permit: Permit, request: &R) -> ChangeContext {
    ChangeContext {
        permit,
        action: R::ACTION,
        request_id: request.request_id().to_owned(),
        method: R::PATH.to_owned(),
        hash: digest::of(request),
        goal: if request.validate_only() { Goal::ValidateOnly } else { Goal::Apply },
        plan_digest: request.plan_digest().to_owned(),
        due: None,
    }
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
        labels: project.labels.into_iter().collect(),
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
    pub(crate) async fn update(
        &self,
        context: &ChangeContext,
        request: pb::UpdateEnvironmentRequest,
    ) -> Result<Answer> {
        let patch = request.environment.unwrap_or_default();
        App::name(&context.permit, context.action, "environment.name", &patch.name, names::ENVIRONMENT)?;
        let view = self.app.environment_now(&context.permit, &patch.name).await?;
        let row = view.environment.clone();
        let current = super::convert::environment(view);
        let mut merged = mask::merge(&current, &patch, request.update_mask.as_ref())?;
        // Both fields say one thing: a mask that names either names the other.
        let paths = request.update_mask.iter().flat_map(|mask| &mask.paths);
        if paths.into_iter().any(|path| matches!(path.as_str(), "ttl" | "expire_time")) {
            merged.expiration = patch.expiration;
        }
        let mut violations = Violations::new();
        // What the mask names can be within the rules, and yet too much together with what is kept.
        violations.extend_under("environment", validate::violations(&merged)?);
        let wanted = environment(Some(&merged), &mut violations);
        violations.into_result()?;
        self.app.update_environment(context, row, &patch.etag, wanted).await
    }
}
