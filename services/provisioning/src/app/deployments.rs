//! Deployments: an artifact of a run put into an environment.

use pavior_rpc::{ErrorReason, Problem, Violations};
use serde_json::{Value, json};

use super::environments::{class_of, costs_of, idle, merged};
use super::facts::{environment_subject, ground_of, labels_of, seen};
use super::planning::only_workload;
use super::submit::Proposal;
use super::{Answer, App, Ask};
use crate::domain::names;
use crate::domain::plan::Kind;
use crate::domain::planner::Section;
use crate::domain::question::{Fate, Verb};
use crate::domain::scope::EnvironmentScope;
use crate::engine::artifact_of_run;
use crate::error::{Error, Result};
use crate::store::entity::environment;

impl App {
    /// Puts an artifact of a run into an environment: of the named run, or of the newest successful one.
    pub(crate) async fn create_deployment(
        &self,
        ask: &Ask,
        parent: &str,
        id: &str,
        run: &str,
        mut violations: Violations,
    ) -> Result<Answer> {
        let name = Self::name(&ask.permit, ask.action, "parent", parent, names::ENVIRONMENT);
        if !id.is_empty() {
            violations.check("deployment_id", pavior_core::name::validate_id(id));
        }
        if !run.is_empty() {
            violations.check("deployment.run", pavior_core::ResourceName::parse_as(run, names::RUN));
        }
        violations.into_result()?;
        name?;
        if let Some(answer) = self.replayed(ask).await? {
            return Ok(answer);
        }
        let row = self.db.environment(&ask.permit, parent).await?;
        let artifact = self.chosen_artifact(ask, &row, run).await?;
        self.deploy(ask, row, artifact, id, String::new(), "deploy to").await
    }

    /// Puts what runs in one environment into another one of the same project.
    pub(crate) async fn promote_deployment(&self, ask: &Ask, parent: &str, source: &str) -> Result<Answer> {
        Self::name(&ask.permit, ask.action, "parent", parent, names::ENVIRONMENT)?;
        Self::name(&ask.permit, ask.action, "source_environment", source, names::ENVIRONMENT)?;
        let mut violations = Violations::new();
        if names::project_of(parent) != names::project_of(source) {
            violations.add("source_environment", "belongs to another project");
        } else if parent == source {
            violations.add("source_environment", "is the environment to promote to");
        }
        violations.into_result()?;
        if let Some(answer) = self.replayed(ask).await? {
            return Ok(answer);
        }
        let row = self.db.environment(&ask.permit, parent).await?;
        let from = self.db.environment(&ask.permit, source).await?;
        let running = match from.deployment.as_str() {
            "" => None,
            name => self.db.find_deployment(&ask.permit, name).await?,
        };
        let Some(running) = running else {
            let message = format!("nothing runs in `{source}`");
            return Err(Problem::precondition(ErrorReason::ReferenceNotFound, message)
                .because("REFERENCE", source, "deploy to it first")
                .into());
        };
        self.deploy(ask, row, running.artifact, "", running.name, "promote to").await
    }

    async fn chosen_artifact(&self, ask: &Ask, row: &environment::Model, run: &str) -> Result<Value> {
        let missing = |message: String, subject: &str| -> Error {
            Problem::precondition(ErrorReason::ReferenceNotFound, message)
                .because("REFERENCE", subject, "run the pipeline first")
                .into()
        };
        let chosen = if run.is_empty() {
            self.db.newest_run(&ask.permit, &row.project).await?
        } else {
            let found = self.db.find_run(&ask.permit, run).await?;
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
        if chosen.state != "SUCCEEDED" {
            return Err(missing(format!("run `{}` did not succeed", chosen.name), &chosen.name));
        }
        let path = self.golden_path(&ask.permit, &row.template_version).await?;
        let wanted = path.template.environment(&row.class).into_iter().flat_map(|class| &class.resources);
        let name = wanted.filter_map(|wanted| wanted.artifact.clone()).next().unwrap_or_default();
        artifact_of_run(&chosen, &name).ok_or_else(|| {
            let what =
                if name.is_empty() { "no artifact".to_owned() } else { format!("no artifact `{name}`") };
            missing(format!("run `{}` has {what}", chosen.name), &chosen.name)
        })
    }

    async fn deploy(
        &self,
        ask: &Ask,
        row: environment::Model,
        artifact: Value,
        id: &str,
        promoted_from: String,
        verb: &'static str,
    ) -> Result<Answer> {
        idle(&row)?;
        let ground = self.ground(ask, &row.project).await?;
        let class = class_of(&ground, &row.class, false)?;
        let parameters = merged(&ground, &row.parameters)?;
        let scope = EnvironmentScope { name: row.name.clone(), class: row.class.clone() };
        let section = only_workload(Section {
            environment: Some(scope),
            parameters: parameters.clone(),
            wanted: class.resources,
        });
        if section.wanted.is_empty() {
            let message = format!("environment class `{}` has no workload to deploy", row.class);
            return Err(Problem::precondition(ErrorReason::InvalidState, message)
                .because("STATE", &row.name, "choose an environment whose class has a workload")
                .into());
        }
        let run = artifact.get("run").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut facts = self.facts_for(ask, &ground, section, Some(artifact)).await?;
        facts.promoted_from.clone_from(&promoted_from);
        let changes = self.changes(&facts).await?;
        let proposal = Proposal {
            kind: Kind::Deploy,
            target: row.name.clone(),
            changes,
            costs: costs_of(&ground.rows, &row.name),
            template_version: ground.path.name.clone(),
            parameters,
            settings: json!({ "run": run, "promoted_from": promoted_from, "deployment_id": id }),
            project: None,
            environments: Vec::new(),
            seen: seen(&ground.project, Some(&row)),
            deployment_id: id.to_owned(),
            asked: Verb::on(environment_subject(&row, &ground.project)),
            ground: ground_of(&ground.project, &row, Fate::Kept),
            labels: labels_of(&ground.project),
            verb,
        };
        self.submit(ask, proposal).await
    }
}
