//! Requests as use cases take them.

use std::time::Duration;

use pavior_auth::Permit;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_rpc::{Violations, convert, digest, mask};
use prost::Name;
use serde_json::{Value, json};

use super::Api;
use crate::app::environments::WantedEnvironment;
use crate::app::projects::WantedProject;
use crate::app::{Answer, App, Ask};
use crate::domain::names;
use crate::error::Result;

/// A change as it came in.
pub(crate) fn ask(
    permit: Permit,
    action: &'static str,
    request: &impl Name,
    request_id: &str,
    validate_only: bool,
) -> Ask {
    let hash = digest::of(request);
    let (request_id, method) = (request_id.to_owned(), method_of(request));
    Ask { permit, action, request_id, method, hash, validate_only, due: None }
}

/// The method that a request message belongs to: each has one of its own, named after it.
fn method_of<M: Name>(_: &M) -> String {
    format!("/{}.ProvisioningService/{}", M::PACKAGE, M::NAME.strip_suffix("Request").unwrap_or(M::NAME))
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
