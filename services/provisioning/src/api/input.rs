//! Requests as use cases take them.

use std::time::Duration;

use pavior_auth::Permit;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::shape::Request;
use pavior_rpc::{Violations, convert, digest, mask};
use serde_json::{Value, json};

use super::Api;
use crate::app::environments::WantedEnvironment;
use crate::app::projects::WantedProject;
use crate::app::{Answer, App, Ask};
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
        validate_only: request.validate_only(),
        due: None,
    }
}

fn parameters(value: Option<&prost_types::Struct>) -> Value {
    value.map_or_else(|| json!({}), convert::from_struct)
}

/// The project that is wanted.
pub(crate) fn project(request: pb::CreateProjectRequest) -> WantedProject {
    let pb::CreateProjectRequest { parent, project_id, project, request_id: _, validate_only: _ } = request;
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
    let ttl = environment.ttl.as_ref().map(convert::from_duration);
    let ttl: Option<Duration> = ttl.and_then(|ttl| violations.check("environment.ttl", ttl));
    WantedEnvironment {
        display_name: environment.display_name,
        class: environment.environment_class,
        parameters: parameters(environment.parameters.as_ref()),
        ttl,
    }
}

impl Api {
    /// Merges the update into what is there, and hands the result on.
    pub(crate) async fn update(&self, ask: &Ask, request: pb::UpdateEnvironmentRequest) -> Result<Answer> {
        let patch = request.environment.unwrap_or_default();
        App::name(&ask.permit, ask.action, "environment.name", &patch.name, names::ENVIRONMENT)?;
        let row = self.app.db.environment(&ask.permit, &patch.name).await?;
        let current = super::convert::environment(row.clone());
        let merged = mask::merge(&current, &patch, request.update_mask.as_ref())?;
        let mut violations = Violations::new();
        let wanted = environment(Some(&merged), &mut violations);
        violations.into_result()?;
        self.app.update_environment(ask, row, &patch.etag, wanted).await
    }
}
