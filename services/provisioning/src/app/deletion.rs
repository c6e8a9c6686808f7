//! Taking down: planned from what is recorded, checked by policy like anything else.

use pavior_resource::check_etag;
use pavior_rpc::Violations;
use serde_json::json;

use super::drift::{refuse_dependents, refuse_held};
use super::environment::idle;
use super::facts::{project_subject, seen, touched};
use super::planning::recorded;
use super::submit::{Effect, Proposal, Target};
use super::{Answer, App, ChangeContext, etag_of};
use crate::domain::plan::{Change, Kind};
use crate::domain::question::Fate;
use crate::domain::resource::Resource;
use crate::domain::{names, teardown};
use crate::error::{Error, Result};
use crate::store::ResourceRecord;

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
    async fn teardown(&self, rows: Vec<Resource>) -> Result<Vec<Change>> {
        let holds = self.holds(rows.iter().map(ResourceRecord::from).collect()).await?;
        let recorded = recorded(rows);
        refuse_held(&teardown::held(&recorded, &holds))?;
        teardown::plan(&recorded, &holds).map_err(|cycle| Error::Corrupt(cycle.to_string()))
    }

    /// Takes an environment down.
    pub(crate) async fn delete_environment(
        &self,
        context: &ChangeContext,
        name: &str,
        etag: &str,
        allow_missing: bool,
        violations: Violations,
    ) -> Result<Answer> {
        violations.into_result()?;
        Self::name(&context.permit, context.action, "name", name, names::ENVIRONMENT)?;
        if let Some(answer) = self.replayed(context).await? {
            return Ok(answer);
        }
        let Some(row) = self.db.find_environment(&context.permit, name).await? else {
            return self.missing(context, "Environment", name, allow_missing).await;
        };
        check_etag(etag, etag_of(row.uid, row.revision))?;
        idle(&row)?;
        let project = self.db.project(&context.permit, &row.project).await?;
        let rows = self.db.resources_of_project(&context.permit, &row.project).await?;
        let rows: Vec<_> = rows.into_iter().filter(|resource| resource.environment == row.name).collect();
        let costs = rows.iter().map(|row| row.monthly_cost.clone()).collect();
        let changes = self.teardown(rows).await?;
        // One that is made anew under the name is another.
        let settings = json!({ "uid": row.uid });
        let proposal = Proposal {
            target: Target { costs, ..Target::environment(&project, &row, Fate::Removed) },
            changes,
            effect: Effect::new(Kind::DestroyEnvironment, "delete environment", settings),
        };
        self.submit(context, proposal).await
    }

    /// Takes a project down, and with force its environments with it.
    pub(crate) async fn delete_project(
        &self,
        context: &ChangeContext,
        name: &str,
        how: Removal<'_>,
        violations: Violations,
    ) -> Result<Answer> {
        violations.into_result()?;
        Self::name(&context.permit, context.action, "name", name, names::PROJECT)?;
        if let Some(answer) = self.replayed(context).await? {
            return Ok(answer);
        }
        let Some(row) = self.db.find_project(&context.permit, name).await? else {
            return self.missing(context, "Project", name, how.allow_missing).await;
        };
        check_etag(how.etag, etag_of(row.uid, row.revision))?;
        if !row.operation.is_empty() {
            return Err(Error::Busy { name: row.name, operation: row.operation });
        }
        self.db.refuse_not_done(&context.permit, name).await?;
        let found = self.db.environments_of_project(&context.permit, name).await?;
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
        let rows = self.db.resources_of_project(&context.permit, name).await?;
        let costs = rows.iter().map(|row| row.monthly_cost.clone()).collect();
        let changes = self.teardown(rows).await?;
        let settings = json!({ "uid": row.uid });
        let target = Target::new(&row, project_subject(&row), environments);
        let proposal = Proposal {
            target: Target { costs, seen: as_seen, ..target },
            changes,
            effect: Effect::new(Kind::DestroyProject, "delete project", settings),
        };
        self.submit(context, proposal).await
    }
}
