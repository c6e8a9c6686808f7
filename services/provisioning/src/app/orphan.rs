//! Removing what a driver has and no resource declares: it is recorded for that, and taken down like anything else.

use std::collections::BTreeMap;

use pavior_core::{Fault, ResourceName};
use pavior_driver::{Failure, FailureCode, Listed};
use pavior_rpc::{ErrorReason, Problem};
use serde_json::json;

use super::drift::refuse_held;
use super::driver::those;
use super::environment::idle;
use super::facts::seen;
use super::submit::{Effect, Proposal, Target};
use super::{Answer, App, ChangeContext};
use crate::domain::plan::{Kind, Spec};
use crate::domain::question::{Subject, Verb, WorksOn};
use crate::domain::resource::Resource;
use crate::domain::{names, teardown};
use crate::error::{Error, Result};
use crate::store::{Makes, ResourceRecord, Seen};

/// What is to be removed.
struct Orphan {
    thing: Listed,
    /// The name under which it is recorded for that.
    name: String,
    /// What is held for it, as it was seen.
    seen: Seen,
}

impl App {
    /// Removes what a driver has under a name of its own, and nobody declares.
    pub(crate) async fn delete_orphan(
        &self,
        context: &ChangeContext,
        parent: &str,
        driver: &str,
        identity: &str,
    ) -> Result<Answer> {
        Self::name(&context.permit, context.action, "parent", parent, names::ORGANIZATION)?;
        if let Some(answer) = self.replayed(context).await? {
            return Ok(answer);
        }
        let Orphan { thing: orphan, name, seen } = self.orphan(context, driver, identity).await?;
        let holds = self.holds(vec![record(driver, &orphan)]).await?;
        let version = self.engine.drivers().get(driver).map(|driver| driver.info().version);
        let recorded = [teardown::Recorded {
            name: name.clone(),
            resource_type: String::new(),
            resource_definition: String::new(),
            driver: driver.to_owned(),
            driver_version: version.unwrap_or_default(),
            depends_on: Vec::new(),
            monthly_cost: String::new(),
            spec: Spec {
                resource_id: names::last(&orphan.resource).to_owned(),
                type_id: orphan.resource_type.clone(),
                environment: names::environment_of(&orphan.resource),
                ..Spec::default()
            },
            identity: orphan.identity.clone(),
        }];
        refuse_held(&teardown::held(&recorded, &holds))?;
        let mut changes =
            teardown::plan(&recorded, &holds).map_err(|cycle| Error::Corrupt(cycle.to_string()))?;
        for change in &mut changes {
            change.step = teardown::step_id(&orphan.resource);
            // Its environment may be another by now, or gone: nothing of it changes, and nobody is asked about it.
            change.spec.environment = String::new();
        }
        // What is removed is part of the plan that people agree to.
        let settings = json!({ "driver": driver, "identity": orphan.identity, "key": orphan.key });
        let effect = Effect::new(Kind::DeleteOrphan, "delete orphan", settings);
        let proposal = Proposal {
            target: Target {
                name,
                costs: Vec::new(),
                template_version: String::new(),
                parameters: json!({}),
                asked: Verb::on(Subject::organization(parent)),
                works_on: WorksOn::default(),
                labels: BTreeMap::new(),
                seen,
            },
            changes,
            effect: Effect { makes: Makes { orphan: Some(orphan.identity), ..Makes::default() }, ..effect },
        };
        self.submit(context, proposal).await
    }

    /// The thing as its driver names it, after it was made sure that no resource declares it.
    async fn orphan(&self, context: &ChangeContext, id: &str, identity: &str) -> Result<Orphan> {
        let permit = &context.permit;
        let Some(driver) = self.engine.drivers().get(id) else {
            let text = format!("there is no driver `{id}`");
            return Err(Problem::invalid_field("driver_id", Fault::Unknown, text).into());
        };
        let things = those(&*driver, [identity].into()).await.map_err(|failure| unlisted(id, &failure))?;
        let Some(thing) = things.into_iter().find(|thing| thing.organization == permit.organization()) else {
            return Err(Error::NotFound { kind: "Orphan", name: format!("{id}: {identity}") });
        };
        let made_for = ResourceName::parse(&thing.resource).ok().filter(|name| {
            name.organization() == permit.organization()
                && !names::project_of(&thing.resource).is_empty()
                && names::made_for(&thing.resource) == thing.resource
        });
        let Some(made_for) = made_for else {
            let message = format!("driver `{id}` does not say for which resource `{identity}` was made");
            let fix = "remove it with the means of the driver";
            return Err(Problem::precondition(ErrorReason::InvalidState, message)
                .because("STATE", identity, fix)
                .into());
        };
        if let Some(row) = self.db.recorded_as(permit, id, identity).await? {
            return Err(self.recorded(row, identity).await?);
        }
        if made_for.collection() != "resources" {
            self.refuse_kept(context, &thing).await?;
        }
        let renamed = |row: &Resource| self.engine.drivers().get(&row.driver).is_none();
        match self.db.find_recorded(permit, &thing.resource).await? {
            None => Ok(Orphan { name: thing.resource.clone(), seen: Seen::new(), thing }),
            // A driver that was given another id has what was made under its old one: that is no orphan.
            Some(row) if row.project.is_empty() || row.identity == identity && renamed(&row) => {
                Err(self.recorded(row, identity).await?)
            }
            Some(row) => {
                let name = names::orphan(&thing.resource, id, identity);
                Ok(Orphan { name, seen: self.namesake(context, &row).await?, thing })
            }
        }
    }

    /// Why what is recorded is no orphan to remove: it is declared, or is being removed.
    async fn recorded(&self, row: Resource, identity: &str) -> Result<Error> {
        if !row.project.is_empty() {
            return Ok(Error::Declared { identity: identity.to_owned(), resource: row.name });
        }
        let operation = self.db.removal_of_unscoped(&row.name).await?;
        Ok(Error::taken(row.name, operation.unwrap_or_default()))
    }

    /// Refuses what was made for a project or an environment itself as long as there is one.
    async fn refuse_kept(&self, context: &ChangeContext, thing: &Listed) -> Result<()> {
        let (project, environment) =
            (names::project_of(&thing.resource), names::environment_of(&thing.resource));
        let (owner, exists, fix) = if environment.is_empty() {
            let exists = self.db.find_project(&context.permit, &project).await?.is_some();
            (project, exists, "repair the project (RepairProject), or delete it")
        } else {
            let exists = self.db.find_environment(&context.permit, &environment).await?.is_some();
            (environment, exists, "update the environment (UpdateEnvironment), or delete it")
        };
        if !exists {
            return Ok(());
        }
        let message = format!("`{}` is no orphan: it was made for `{owner}`, which exists", thing.identity);
        Err(Problem::precondition(ErrorReason::InvalidState, message).because("STATE", owner, fix).into())
    }

    /// What the resource is in that has the orphan's name now, as it is held: nothing else may work on it.
    async fn namesake(&self, context: &ChangeContext, row: &Resource) -> Result<Seen> {
        let project = self.db.project(&context.permit, &row.project).await?;
        if !project.operation.is_empty() {
            return Err(Error::Busy { name: project.name, operation: project.operation });
        }
        if row.environment.is_empty() {
            return Ok(seen(&project, None));
        }
        let environment = self.db.environment(&context.permit, &row.environment).await?;
        idle(&environment)?;
        Ok(seen(&project, Some(&environment)))
    }
}

fn unlisted(driver: &str, failure: &Failure) -> Error {
    let problem = if failure.code == FailureCode::Unsupported {
        let message = format!("driver `{driver}` does not say what it has: {}", failure.message);
        Problem::precondition(ErrorReason::InvalidState, message)
    } else {
        Problem::unavailable(format!("driver `{driver}` does not answer: {}", failure.message))
    };
    problem.with("driver", driver).into()
}

/// What its driver is asked about, as if it were recorded.
fn record(driver: &str, thing: &Listed) -> ResourceRecord {
    ResourceRecord {
        driver: driver.to_owned(),
        identity: thing.identity.clone(),
        name: thing.resource.clone(),
        organization: thing.organization.clone(),
        type_id: thing.resource_type.clone(),
        state: crate::domain::resource::ResourceState::Active,
        inputs: json!({}),
        sealed_inputs: String::new(),
    }
}
