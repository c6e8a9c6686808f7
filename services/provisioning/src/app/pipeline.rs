//! Pipelines are the project's resources of the pipeline type; they run.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_core::ResourceName;
use pavior_rpc::Violations;
use serde_json::json;

use super::facts::project_subject;
use super::planning::current;
use super::submit::{Effect, Proposal, Target};
use super::{Answer, App, ChangeContext, ListQuery, Listed};
use crate::domain::plan::Kind;
use crate::domain::resource::Resource;
use crate::domain::resource::ResourceState;
use crate::domain::run::Run;
use crate::domain::{names, planner};
use crate::error::{Error, Result};
use crate::store::{Db, Listing};

/// A pipeline: the resource that it is, and its newest run.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) name: String,
    pub(crate) resource: Resource,
    /// By resource name; empty when there is none.
    pub(crate) latest_run: String,
}

impl Pipeline {
    /// With the newest runs of pipelines, by the names of the pipelines.
    fn new(resource: Resource, latest: &BTreeMap<String, Run>) -> Self {
        let name = pipeline_of(&resource);
        let latest_run = latest.get(&name).map(|run| run.name.clone()).unwrap_or_default();
        Self { name, resource, latest_run }
    }
}

/// The name of the pipeline that a resource is.
fn pipeline_of(resource: &Resource) -> String {
    format!("{}/pipelines/{}", resource.project, names::last(&resource.name))
}

/// The resource that a pipeline is.
pub(crate) fn resource_of(pipeline: &ResourceName) -> String {
    let project = names::project_of(pipeline.as_str());
    format!("{project}/resources/{}", pipeline.id())
}

impl App {
    /// One pipeline.
    pub(crate) async fn get_pipeline(&self, permit: &Permit, name: &str) -> Result<Pipeline> {
        let parsed = Self::name(permit, "provisioning.pipelines.get", "name", name, names::PIPELINE)?;
        let resource = self.pipeline(permit, &parsed).await?;
        let latest = self.db.latest_runs(permit, vec![name.to_owned()]).await?;
        Ok(Pipeline::new(resource, &latest))
    }

    /// A page of pipelines.
    pub(crate) async fn list_pipelines(&self, permit: &Permit, query: ListQuery) -> Result<Listed<Pipeline>> {
        Self::name(permit, "provisioning.pipelines.list", "parent", &query.parent, names::PROJECT)?;
        self.db.project(permit, &query.parent).await?;
        let read = async |db: &Db, listing: &Listing| db.pipelines_page(permit, listing).await;
        let Listed { items, next_page_token } = self.list("ListPipelines", query, read).await?;
        let latest = self.db.latest_runs(permit, items.iter().map(pipeline_of).collect()).await?;
        let items = items.into_iter().map(|resource| Pipeline::new(resource, &latest)).collect();
        Ok(Listed { items, next_page_token })
    }

    /// One run.
    pub(crate) async fn get_run(&self, permit: &Permit, name: &str) -> Result<Run> {
        Self::name(permit, "provisioning.runs.get", "name", name, names::RUN)?;
        self.db.run(permit, name).await
    }

    /// A page of runs.
    pub(crate) async fn list_runs(&self, permit: &Permit, query: ListQuery) -> Result<Listed<Run>> {
        let parent = &query.parent;
        let name = Self::name(permit, "provisioning.runs.list", "parent", parent, names::PIPELINE)?;
        self.pipeline(permit, &name).await?;
        self.list("ListRuns", query, async |db, listing| db.runs_page(permit, listing).await).await
    }

    /// A pipeline's resource.
    pub(crate) async fn pipeline(&self, permit: &Permit, name: &ResourceName) -> Result<Resource> {
        let row = self.db.find_resource(permit, &resource_of(name)).await?;
        row.filter(|row| row.type_id == names::PIPELINE_TYPE)
            .ok_or_else(|| Error::NotFound { kind: "Pipeline", name: name.as_str().to_owned() })
    }

    /// Runs a pipeline.
    pub(crate) async fn run_pipeline(
        &self,
        context: &ChangeContext,
        name: &str,
        revision: &str,
        mut violations: Violations,
    ) -> Result<Answer> {
        let parsed = Self::name(&context.permit, context.action, "name", name, names::PIPELINE);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._/-".contains(&b);
        let begins = revision.bytes().next().is_none_or(|b| b.is_ascii_alphanumeric());
        if revision.len() > 200 || !begins || !revision.bytes().all(plain) || revision.contains("..") {
            violations.add("revision", Fault::Pattern, "must be a commit, a branch or a tag");
        }
        violations.into_result()?;
        let parsed = parsed?;
        if let Some(answer) = self.replayed(context).await? {
            return Ok(answer);
        }
        let project = self.db.project(&context.permit, &names::project_of(name)).await?;
        let row = self.pipeline(&context.permit, &parsed).await?;
        if !project.operation.is_empty() || row.state != ResourceState::Active {
            return Err(Error::Busy { name: project.name, operation: project.operation });
        }
        let made_by = current(std::slice::from_ref(&row)).remove(&row.name).unwrap_or_default().made_by;
        let mut change = planner::run(&row.name, &made_by, revision, Vec::new());
        self.pin_run(context.permit.organization(), &row.identity, &mut change).await?;
        let proposal = Proposal {
            target: Target::new(&project, project_subject(&project).pipeline(name), Vec::new()),
            changes: vec![change],
            effect: Effect::new(Kind::Run, "run pipeline", json!({ "revision": revision })),
        };
        self.submit(context, proposal).await
    }
}
