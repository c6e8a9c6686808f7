//! Deployments: an artifact of a run put into an environment.

use pavior_auth::Permit;
use pavior_core::{Fault, ResourceName};
use pavior_resource::ListQuery;
use pavior_rpc::{ErrorReason, Problem, Violations};
use serde_json::{Value, json};

use super::environment::{class_of, idle, merged, section};
use super::planning::narrow;
use super::submit::{Effect, Proposal};
use super::{Answer, App, ChangeContext, Readable};
use crate::domain::deployment::Deployment;
use crate::domain::environment::Environment;
use crate::domain::names::{self, Parent};
use crate::domain::plan::Kind;
use crate::domain::question::Fate;
use crate::domain::run::RunState;
use crate::domain::template::Wanted;
use crate::engine::artifact_of_run;
use crate::error::{Error, Result};
use crate::store::{Makes, Page};

/// Where the artifact of a deployment comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The newest successful run.
    Newest,
    Run(String),
    Deployment(String),
}

/// An artifact, and the deployment that it was taken from.
#[derive(Debug, Clone, Default)]
struct Chosen {
    artifact: Value,
    from: String,
}

impl Readable for Deployment {
    const PATTERN: &'static str = names::DEPLOYMENT;

    async fn get(app: &App, permit: &Permit, name: &ResourceName) -> Result<Self> {
        app.db.deployment(permit, name.as_str()).await
    }

    async fn list(app: &App, permit: &Permit, parent: &Parent, query: &ListQuery) -> Result<Page<Self>> {
        match parent.one() {
            Some(environment) => drop(app.db.environment(permit, environment.as_str()).await?),
            None => app.project_of(permit, parent).await?,
        }
        app.db.deployments_page(permit, parent, query).await
    }
}

impl App {
    /// Puts an artifact into an environment: of a run, or of an earlier deployment of the environment.
    pub(crate) async fn create_deployment(
        &self,
        context: &ChangeContext,
        parent: &str,
        id: &str,
        source: Source,
        mut violations: Violations,
    ) -> Result<Answer> {
        let name = Self::name(&context.permit, context.action, "parent", parent, names::ENVIRONMENT);
        if !id.is_empty() {
            // The server counts on with these, also for further workloads of the environment.
            let number = id.strip_prefix("deployment-").unwrap_or_default();
            if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
                let message =
                    "ids of the form `deployment-1` are those that the server makes: choose another";
                violations.add("deployment_id", Fault::Reserved, message);
            }
        }
        let named = |name: &str, pattern: &str| pavior_core::ResourceName::parse_as(name, pattern);
        match &source {
            Source::Newest => {}
            Source::Run(run) => {
                drop(violations.check("deployment.source_run", Fault::Pattern, named(run, names::RUN)))
            }
            Source::Deployment(other) => {
                let field = "deployment.source_deployment";
                let known = violations.check(field, Fault::Pattern, named(other, names::DEPLOYMENT));
                if known.is_some() && names::environment_of(other) != parent {
                    let what =
                        "belongs to another environment: PromoteDeployment takes it from there to here";
                    violations.add(field, Fault::Conflict, what);
                }
            }
        }
        violations.into_result()?;
        name?;
        if let Some(answer) = self.replayed(context).await? {
            return Ok(answer);
        }
        let row = self.db.environment(&context.permit, parent).await?;
        let chosen = match &source {
            Source::Newest => self.artifact_of(context, &row, "").await?,
            Source::Run(run) => self.artifact_of(context, &row, run).await?,
            Source::Deployment(other) => self.deployed_artifact(context, other).await?,
        };
        self.deploy(context, row, chosen, id, "deploy to").await
    }

    /// Puts the artifact of a deployment into another environment of the same project.
    pub(crate) async fn promote_deployment(
        &self,
        context: &ChangeContext,
        name: &str,
        environment: &str,
    ) -> Result<Answer> {
        Self::name(&context.permit, context.action, "environment", environment, names::ENVIRONMENT)?;
        Self::name(&context.permit, context.action, "name", name, names::DEPLOYMENT)?;
        let mut violations = Violations::new();
        if names::project_of(environment) != names::project_of(name) {
            violations.add("environment", Fault::Conflict, "belongs to another project than the deployment");
        } else if environment == names::environment_of(name) {
            violations.add("environment", Fault::Conflict, "is where the deployment is");
        }
        violations.into_result()?;
        if let Some(answer) = self.replayed(context).await? {
            return Ok(answer);
        }
        let row = self.db.environment(&context.permit, environment).await?;
        let chosen = self.deployed_artifact(context, name).await?;
        self.deploy(context, row, chosen, "", "promote to").await
    }

    /// The artifact of a deployment that came up.
    async fn deployed_artifact(&self, context: &ChangeContext, name: &str) -> Result<Chosen> {
        let Some(deployment) = self.db.find_deployment(&context.permit, name).await? else {
            let message = format!("deployment `{name}` does not exist");
            return Err(Problem::precondition(ErrorReason::ReferenceNotFound, message)
                .because("REFERENCE", name, "name a deployment that there is")
                .into());
        };
        if !deployment.state.has_run() {
            let message = format!("deployment `{name}` has not come up");
            return Err(Problem::precondition(ErrorReason::InvalidState, message)
                .because("STATE", name, "name a deployment that runs or has run")
                .into());
        }
        Ok(Chosen { artifact: deployment.artifact, from: deployment.name })
    }

    /// The artifact of a run: of the newest successful one when none is named.
    async fn artifact_of(&self, context: &ChangeContext, row: &Environment, run: &str) -> Result<Chosen> {
        let missing = |message: String, subject: &str| -> Error {
            Problem::precondition(ErrorReason::ReferenceNotFound, message)
                .because("REFERENCE", subject, "run the pipeline first")
                .into()
        };
        let chosen = if run.is_empty() {
            self.db.newest_run(&context.permit, &row.project).await?
        } else {
            let found = self.db.find_run(&context.permit, run).await?;
            found.filter(|run| run.project == row.project)
        };
        let Some(chosen) = chosen else {
            let message = if run.is_empty() {
                format!("`{}` has no successful run", row.project)
            } else {
                format!("run `{run}` does not exist in `{}`", row.project)
            };
            return Err(missing(message, if run.is_empty() { &row.project } else { run }));
        };
        if chosen.state != RunState::Succeeded {
            return Err(missing(format!("run `{}` did not succeed", chosen.name), &chosen.name));
        }
        let path = self.golden_path(&context.permit, &row.template_version).await?;
        let wanted = path.template.environment(&row.class).into_iter().flat_map(|class| &class.resources);
        let name = wanted.filter_map(|wanted| wanted.artifact.clone()).next().unwrap_or_default();
        let artifact = artifact_of_run(&chosen, &name).ok_or_else(|| {
            let what =
                if name.is_empty() { "no artifact".to_owned() } else { format!("no artifact `{name}`") };
            missing(format!("run `{}` has {what}", chosen.name), &chosen.name)
        })?;
        Ok(Chosen { artifact, from: String::new() })
    }

    async fn deploy(
        &self,
        context: &ChangeContext,
        row: Environment,
        chosen: Chosen,
        id: &str,
        verb: &'static str,
    ) -> Result<Answer> {
        let Chosen { artifact, from } = chosen;
        idle(&row)?;
        let ground = self.ground(context, &row.project).await?;
        let class = class_of(&ground, &row.class, false)?;
        let parameters = merged(&ground, &row.parameters)?;
        let section = section(&row.name, &class, &parameters);
        if !section.wanted.iter().any(Wanted::takes_artifact) {
            let message = format!("environment class `{}` has no workload that takes an artifact", row.class);
            return Err(Problem::precondition(ErrorReason::InvalidState, message)
                .because("STATE", &row.name, "choose an environment whose class has one")
                .into());
        }
        let run = artifact.get("run").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut facts = self.facts_for(context, &ground, section, Some(artifact)).await?;
        facts.source_deployment.clone_from(&from);
        // What it runs on is there by then.
        narrow(&mut facts, |_, wanted, standing| {
            wanted.is_workload() || standing.is_some_and(|standing| standing.drift().is_some())
        });
        let changes = self.changes(&facts).await?;
        let mends = changes.iter().any(|change| change.is_step() && !change.spec.is_workload());
        let fate = if mends { Fate::Changed } else { Fate::Kept };
        let target = ground.changed(&row, parameters, fate);
        let settings = json!({ "run": run, "source_deployment": from, "deployment_id": id });
        let effect = Effect {
            makes: Makes { deployment_id: id.to_owned(), ..Makes::default() },
            ..Effect::new(Kind::Deploy, verb, settings)
        };
        let proposal = Proposal { target, changes, effect };
        self.submit(context, proposal).await
    }
}
