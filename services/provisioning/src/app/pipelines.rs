//! Pipelines are the project's resources of the pipeline type; they run.

use pavior_core::Fault;
use pavior_core::ResourceName;
use pavior_rpc::Violations;
use serde_json::json;

use super::facts::{labels_of, project_subject, seen};
use super::planning::current;
use super::submit::Proposal;
use super::{Answer, App, Ask};
use crate::domain::plan::Kind;
use crate::domain::question::{Ground, Verb};
use crate::domain::{names, planner};
use crate::error::{Error, Result};
use crate::store::entity::resource;

/// The resource that a pipeline is.
pub(crate) fn resource_of(pipeline: &ResourceName) -> String {
    let project = names::project_of(pipeline.as_str());
    format!("{project}/resources/{}", pipeline.id())
}

impl App {
    /// A pipeline's resource.
    pub(crate) async fn pipeline(
        &self,
        permit: &pavior_auth::Permit,
        name: &ResourceName,
    ) -> Result<resource::Model> {
        let row = self.db.find_resource(permit, &resource_of(name)).await?;
        row.filter(|row| row.type_id == names::PIPELINE_TYPE)
            .ok_or_else(|| Error::NotFound { kind: "Pipeline", name: name.as_str().to_owned() })
    }

    /// Runs a pipeline.
    pub(crate) async fn run_pipeline(
        &self,
        ask: &Ask,
        name: &str,
        revision: &str,
        mut violations: Violations,
    ) -> Result<Answer> {
        let parsed = Self::name(&ask.permit, ask.action, "name", name, names::PIPELINE);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._/-".contains(&b);
        let begins = revision.bytes().next().is_none_or(|b| b.is_ascii_alphanumeric());
        if revision.len() > 200 || !begins || !revision.bytes().all(plain) || revision.contains("..") {
            violations.add("revision", Fault::Pattern, "must be a commit, a branch or a tag");
        }
        violations.into_result()?;
        let parsed = parsed?;
        if let Some(answer) = self.replayed(ask).await? {
            return Ok(answer);
        }
        let project = self.db.project(&ask.permit, &names::project_of(name)).await?;
        let row = self.pipeline(&ask.permit, &parsed).await?;
        if !project.operation.is_empty() || row.state != "ACTIVE" {
            return Err(Error::Busy { name: project.name, operation: project.operation });
        }
        let made_by = current(std::slice::from_ref(&row)).remove(&row.name).unwrap_or_default().made_by;
        let mut change = planner::run(&row.name, &made_by, revision, Vec::new());
        self.pin_run(ask.permit.organization(), &row.identity, &mut change).await?;
        let proposal = Proposal {
            kind: Kind::Run,
            target: name.to_owned(),
            changes: vec![change],
            costs: Vec::new(),
            template_version: project.template_version.clone(),
            parameters: json!({}),
            settings: json!({ "revision": revision }),
            project: None,
            environments: Vec::new(),
            seen: seen(&project, None),
            deployment_id: String::new(),
            asked: Verb::on(project_subject(&project).pipeline(name)),
            ground: Ground::new(project_subject(&project), Vec::new()),
            labels: labels_of(&project),
            verb: "run pipeline",
        };
        self.submit(ask, proposal).await
    }
}
