//! Taking down: planned from what is recorded, checked by policy like anything else.

use pavior_rpc::Violations;
use serde_json::json;

use super::environments::idle;
use super::facts::{environment_subject, ground_of, labels_of, project_subject, seen, touched};
use super::planning::recorded;
use super::standing::{refuse_dependents, refuse_held};
use super::submit::Proposal;
use super::{Answer, App, Ask, check_etag};
use crate::domain::plan::{Change, Kind};
use crate::domain::question::{Fate, Ground, Verb};
use crate::domain::{names, teardown};
use crate::error::{Error, Result};
use crate::store::Recorded;
use crate::store::entity::resource;

/// How a project is taken down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Removal<'a> {
    /// Not empty, it must be the current one.
    pub(crate) etag: &'a str,
    /// That it is not there is no error.
    pub(crate) allow_missing: bool,
    /// What is in it goes with it.
    pub(crate) force: bool,
}

impl App {
    /// The changes that take things down, after their drivers have said that nothing else needs them.
    async fn teardown(&self, rows: Vec<resource::Model>) -> Result<Vec<Change>> {
        let holds = self.holds(rows.iter().map(Recorded::from).collect()).await?;
        let recorded = recorded(rows)?;
        refuse_held(&teardown::held(&recorded, &holds))?;
        teardown::plan(&recorded, &holds).map_err(|cycle| Error::Corrupt(cycle.to_string()))
    }

    /// Takes an environment down.
    pub(crate) async fn delete_environment(
        &self,
        ask: &Ask,
        name: &str,
        etag: &str,
        allow_missing: bool,
        violations: Violations,
    ) -> Result<Answer> {
        violations.into_result()?;
        Self::name(&ask.permit, ask.action, "name", name, names::ENVIRONMENT)?;
        if let Some(answer) = self.replayed(ask).await? {
            return Ok(answer);
        }
        let Some(row) = self.db.find_environment(&ask.permit, name).await? else {
            return self.missing(ask, "Environment", name, allow_missing).await;
        };
        check_etag(etag, row.uid, row.revision)?;
        idle(&row)?;
        let project = self.db.project(&ask.permit, &row.project).await?;
        let rows = self.db.resources_of_project(&ask.permit, &row.project).await?;
        let rows: Vec<_> = rows.into_iter().filter(|resource| resource.environment == row.name).collect();
        let costs = rows.iter().map(|row| row.monthly_cost.clone()).collect();
        let changes = self.teardown(rows).await?;
        let proposal = Proposal {
            kind: Kind::DestroyEnvironment,
            target: name.to_owned(),
            changes,
            costs,
            template_version: row.template_version.clone(),
            parameters: json!({}),
            // One that is made anew under the name is another.
            settings: json!({ "uid": row.uid }),
            project: None,
            environments: Vec::new(),
            seen: seen(&project, Some(&row)),
            deployment_id: String::new(),
            asked: Verb::on(environment_subject(&row, &project)),
            ground: ground_of(&project, &row, Fate::Removed),
            labels: labels_of(&project),
            verb: "delete environment",
        };
        self.submit(ask, proposal).await
    }

    /// Takes a project down, and with force its environments with it.
    pub(crate) async fn delete_project(
        &self,
        ask: &Ask,
        name: &str,
        how: Removal<'_>,
        violations: Violations,
    ) -> Result<Answer> {
        violations.into_result()?;
        Self::name(&ask.permit, ask.action, "name", name, names::PROJECT)?;
        if let Some(answer) = self.replayed(ask).await? {
            return Ok(answer);
        }
        let Some(row) = self.db.find_project(&ask.permit, name).await? else {
            return self.missing(ask, "Project", name, how.allow_missing).await;
        };
        check_etag(how.etag, row.uid, row.revision)?;
        if !row.operation.is_empty() {
            return Err(Error::Busy { name: row.name, operation: row.operation });
        }
        let found = self.db.environments_of_project(&ask.permit, name).await?;
        if !how.force {
            let within = found.iter().map(|environment| (name, environment.name.as_str()));
            let message = format!("`{name}` has environments: delete them first, or set `force` to do both");
            refuse_dependents(&message, &within.collect::<Vec<_>>(), |_| "is in it".to_owned())?;
        }
        let mut environments = Vec::new();
        let mut as_seen = seen(&row, None);
        for environment in found {
            idle(&environment)?;
            as_seen.extend(seen(&row, Some(&environment)));
            environments.push(touched(&environment, Fate::Removed));
        }
        let rows = self.db.resources_of_project(&ask.permit, name).await?;
        let costs = rows.iter().map(|row| row.monthly_cost.clone()).collect();
        let changes = self.teardown(rows).await?;
        let proposal = Proposal {
            kind: Kind::DestroyProject,
            target: name.to_owned(),
            changes,
            costs,
            template_version: row.template_version.clone(),
            parameters: json!({}),
            // One that is made anew under the name is another.
            settings: json!({ "uid": row.uid }),
            project: None,
            environments: Vec::new(),
            seen: as_seen,
            deployment_id: String::new(),
            asked: Verb::on(project_subject(&row)),
            ground: Ground::new(project_subject(&row), environments),
            labels: labels_of(&row),
            verb: "delete project",
        };
        self.submit(ask, proposal).await
    }
}
