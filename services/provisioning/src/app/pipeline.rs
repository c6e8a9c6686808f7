//! Pipelines are the project's resources of the pipeline type; they run.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_core::ResourceName;
use pavior_resource::ListQuery;
use pavior_rpc::Violations;
use serde_json::json;

use super::facts::project_subject;
use super::planning::current;
use super::submit::{Effect, Proposal, Target};
use super::{Answer, App, ChangeContext, Readable};
use crate::domain::names::{self, Parent};
use crate::domain::plan::Kind;
use crate::domain::planner;
use crate::domain::resource::Resource;
use crate::domain::resource::ResourceState;
use crate::domain::run::Run;
use crate::error::{Error, Result};
use crate::store::Page;

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

impl Readable for Pipeline {
    const PATTERN: &'static str = names::PIPELINE;

    async fn get(app: &App, permit: &Permit, name: &ResourceName) -> Result<Self> {
        let resource = app.pipeline(permit, name).await?;
        let latest = app.db.latest_runs(permit, vec![name.to_string()]).await?;
        Ok(Self::new(resource, &latest))
    }

    async fn list(app: &App, permit: &Permit, parent: &Parent, query: &ListQuery) -> Result<Page<Self>> {
        app.project_of(permit, parent).await?;
        let page = app.db.pipelines_page(permit, parent, query).await?;
        page.of(async |resources: Vec<Resource>| {
            let latest = app.db.latest_runs(permit, resources.iter().map(pipeline_of).collect()).await?;
            Ok(resources.into_iter().map(|resource| Self::new(resource, &latest)).collect())
        })
        .await
    }
}

impl Readable for Run {
    const PATTERN: &'static str = names::RUN;

    async fn get(app: &App, permit: &Permit, name: &ResourceName) -> Result<Self> {
        app.db.run(permit, name.as_str()).await
    }

    async fn list(app: &App, permit: &Permit, parent: &Parent, query: &ListQuery) -> Result<Page<Self>> {
        match parent.one() {
            Some(pipeline) => drop(app.pipeline(permit, pipeline).await?),
            None => app.project_of(permit, parent).await?,
        }
        app.db.runs_page(permit, parent, query).await
    }
}

impl App {
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
            return Err(Error::taken(project.name, project.operation));
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
