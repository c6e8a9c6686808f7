//! What operations led to, for their answers: read for all of a list at once.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use serde_json::Value;

use super::App;
use crate::domain::deployment::Deployment;
use crate::domain::environment::EnvironmentView;
use crate::domain::names;
use crate::domain::operation::{Operation, OperationState, Removed};
use crate::domain::plan::Kind;
use crate::domain::project::Project;
use crate::domain::run::Run;
use crate::error::Result;
use crate::store::OperationView;

/// An operation, and what it led to.
#[derive(Debug, Clone)]
pub(crate) struct OperationAnswer {
    pub(crate) view: OperationView,
    /// Nothing as long as it has not succeeded, or when what it led to is not there (any more).
    pub(crate) response: Option<Response>,
}

/// What an operation led to.
#[derive(Debug, Clone)]
pub(crate) enum Response {
    Project(Box<Project>),
    Environment(Box<EnvironmentView>),
    Run(Box<Run>),
    Deployment(Box<Deployment>),
}

impl App {
    /// An operation with what it led to.
    pub(crate) async fn with_response(
        &self,
        permit: &Permit,
        view: OperationView,
    ) -> Result<OperationAnswer> {
        let found = Found::read(self, permit, std::iter::once(&view.op)).await?;
        Ok(OperationAnswer { response: found.response(&view.op), view })
    }

    /// Operations with what they led to, in their order.
    pub(crate) async fn with_responses(
        &self,
        permit: &Permit,
        views: Vec<OperationView>,
    ) -> Result<Vec<OperationAnswer>> {
        let found = Found::read(self, permit, views.iter().map(|view| &view.op)).await?;
        let answer = |view: OperationView| OperationAnswer { response: found.response(&view.op), view };
        Ok(views.into_iter().map(answer).collect())
    }
}

/// What some operations led to.
struct Found {
    projects: BTreeMap<String, Project>,
    environments: BTreeMap<String, EnvironmentView>,
    /// By operation.
    runs: BTreeMap<String, Run>,
    /// By operation, in order of the workloads.
    made: BTreeMap<String, Vec<Deployment>>,
    /// By name.
    running: BTreeMap<String, Deployment>,
}

impl Found {
    async fn read(app: &App, permit: &Permit, operations: impl Iterator<Item = &Operation>) -> Result<Self> {
        let (mut projects, mut environments, mut runs, mut deploys) = (vec![], vec![], vec![], vec![]);
        for op in operations.filter(|op| op.state == OperationState::Succeeded) {
            match op.kind {
                Kind::CreateProject | Kind::RepairProject => projects.push(op.target.clone()),
                Kind::CreateEnvironment | Kind::UpdateEnvironment => environments.push(op.target.clone()),
                Kind::Run => runs.push(op.name.clone()),
                Kind::Deploy => deploys.push((op.name.clone(), op.target.clone())),
                Kind::DestroyProject | Kind::DestroyEnvironment | Kind::DeleteOrphan => {}
            }
        }
        let made = deploys.iter().map(|(name, _)| name.clone()).collect();
        let made = app.db.deployments_of_operations(permit, made).await?;
        // The others found that the same artifact ran already.
        environments
            .extend(deploys.into_iter().filter(|(name, _)| !made.contains_key(name)).map(|(_, of)| of));
        let environments = app.db.environments_named(permit, environments).await?;
        let environments = app.db.with_workloads(permit, environments.into_values().collect()).await?;
        let running = environments.iter().filter_map(|view| view.deployments.first().cloned()).collect();
        let environments =
            environments.into_iter().map(|view| (view.environment.name.clone(), view)).collect();
        Ok(Self {
            projects: app.db.projects_named(permit, projects).await?,
            runs: app.db.runs_of_operations(permit, runs).await?,
            running: app.db.deployments_named(permit, running).await?,
            environments,
            made,
        })
    }

    fn response(&self, op: &Operation) -> Option<Response> {
        if op.state != OperationState::Succeeded {
            return None;
        }
        Some(match op.kind {
            Kind::CreateProject | Kind::RepairProject => {
                Response::Project(Box::new(self.projects.get(&op.target)?.clone()))
            }
            Kind::CreateEnvironment | Kind::UpdateEnvironment => {
                Response::Environment(Box::new(self.environments.get(&op.target)?.clone()))
            }
            Kind::DestroyProject | Kind::DestroyEnvironment => match op.removed.clone()? {
                Removed::Project(project) => Response::Project(project),
                Removed::Environment(view) => Response::Environment(view),
            },
            // It was no resource of anybody.
            Kind::DeleteOrphan => return None,
            Kind::Run => Response::Run(Box::new(self.runs.get(&op.name)?.clone())),
            Kind::Deploy => {
                let running = || self.running.get(self.environments.get(&op.target)?.deployments.first()?);
                let made = self.made.get(&op.name).and_then(|made| asked_for(op, made));
                Response::Deployment(Box::new(made.or_else(running)?.clone()))
            }
        })
    }
}

/// Of the deployments that an operation made, that with the id which was asked for: the first where none was.
fn asked_for<'a>(op: &Operation, made: &'a [Deployment]) -> Option<&'a Deployment> {
    let id = op.settings.get("deployment_id").and_then(Value::as_str).unwrap_or_default();
    made.iter().find(|deployment| names::last(&deployment.name) == id).or_else(|| made.first())
}
