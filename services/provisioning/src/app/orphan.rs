//! Removing what a driver has and no resource declares: it is recorded for that, and taken down like anything else.

use std::collections::BTreeMap;

use pavior_core::{Fault, ResourceName};
use pavior_driver::{Failure, FailureCode, Listed};
use pavior_rpc::{ErrorReason, Problem};
use serde_json::json;

use super::drift::refuse_held;
use super::driver::all;
use super::submit::{Effect, Proposal, Target};
use super::{Answer, App, ChangeContext};
use crate::domain::plan::{Kind, Spec};
use crate::domain::question::{Subject, Verb, WorksOn};
use crate::domain::{names, teardown};
use crate::error::{Error, Result};
use crate::store::{Makes, ResourceRecord};

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
        let orphan = self.orphan(context, driver, identity).await?;
        let holds = self.holds(vec![record(driver, &orphan)]).await?;
        let version = self.engine.drivers().get(driver).map(|driver| driver.info().version);
        let recorded = [teardown::Recorded {
            name: orphan.resource.clone(),
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
            // Its environment may be another by now, or gone: nothing of it changes, and nobody is asked about it.
            change.spec.environment = String::new();
        }
        // What is removed is part of the plan that people agree to.
        let settings = json!({ "driver": driver, "identity": orphan.identity, "key": orphan.key });
        let effect = Effect::new(Kind::DeleteOrphan, "delete orphan", settings);
        let proposal = Proposal {
            target: Target {
                name: orphan.resource,
                costs: Vec::new(),
                template_version: String::new(),
                parameters: json!({}),
                asked: Verb::on(Subject::organization(parent)),
                works_on: WorksOn::default(),
                labels: BTreeMap::new(),
                seen: BTreeMap::new(),
            },
            changes,
            effect: Effect { makes: Makes { orphan: Some(orphan.identity), ..Makes::default() }, ..effect },
        };
        self.submit(context, proposal).await
    }

    /// The thing as its driver names it, after it was made sure that no resource declares it.
    async fn orphan(&self, context: &ChangeContext, id: &str, identity: &str) -> Result<Listed> {
        let organization = context.permit.organization();
        let Some(driver) = self.engine.drivers().get(id) else {
            let text = format!("there is no driver `{id}`");
            return Err(Problem::invalid_field("driver_id", Fault::Unknown, text).into());
        };
        let things = all(&*driver).await.map_err(|failure| unlisted(id, &failure))?;
        let own = |thing: &Listed| thing.identity == identity && thing.organization == organization;
        let Some(thing) = things.into_iter().find(own) else {
            return Err(Error::NotFound { kind: "Orphan", name: format!("{id}: {identity}") });
        };
        let name = ResourceName::parse(&thing.resource).ok();
        let own = name.is_some_and(|name| name.organization() == organization);
        if !own || names::project_of(&thing.resource).is_empty() {
            let message = format!("driver `{id}` does not say for which resource `{identity}` was made");
            let fix = "remove it with the means of the driver";
            return Err(Problem::precondition(ErrorReason::InvalidState, message)
                .because("STATE", identity, fix)
                .into());
        }
        if let Some(row) = self.db.find_resource(&context.permit, &thing.resource).await? {
            if row.project.is_empty() {
                let operation = self.db.removal_of_unscoped(&row.name).await?;
                return Err(Error::Busy { name: row.name, operation });
            }
            let message = if row.identity == identity {
                format!("`{identity}` is no orphan: `{}` declares it", row.name)
            } else {
                format!("`{}` is recorded, and has another `{id}` than this one", row.name)
            };
            let fix = "delete the resource with its environment or project first";
            return Err(Problem::precondition(ErrorReason::InvalidState, message)
                .because("STATE", &row.name, fix)
                .into());
        }
        Ok(thing)
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
