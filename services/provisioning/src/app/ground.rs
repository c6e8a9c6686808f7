//! What an operation that a restore has held up builds on: it may be gone by now, and another thing have its name, which would
//! be built on in its place.

use std::collections::BTreeSet;

use pavior_auth::Permit;
use pavior_rpc::{ErrorReason, Problem};

use super::App;
use crate::domain::drift::{Drift, Standing};
use crate::domain::names;
use crate::domain::operation::StepState;
use crate::domain::plan::Action;
use crate::error::Result;
use crate::store::{OperationView, ResourceRecord};

impl App {
    /// Fails where something is gone of what the operation goes on from: it stays as it is until that is there again.
    ///
    /// # Errors
    /// FAILED_PRECONDITION that names what is gone; UNAVAILABLE when a driver does not say whether a thing is there.
    pub(super) async fn stands_on_its_ground(&self, permit: &Permit, view: &OperationView) -> Result<()> {
        let gone = self.lost_ground(permit, view).await?;
        let Some(first) = gone.first() else { return Ok(()) };
        let problem = Problem::precondition(ErrorReason::InvalidState, lost(&gone));
        Err(problem.because("STATE", first, "it is gone, and is not made anew by this").into())
    }

    /// What is gone of what the operation goes on from, and does not make itself; nothing where it builds on nothing.
    ///
    /// # Errors
    /// UNAVAILABLE when a driver does not say whether a thing is there.
    async fn lost_ground(&self, permit: &Permit, view: &OperationView) -> Result<Vec<String>> {
        if view.op.parked.is_none() || !view.op.kind.reversible() || view.undoes() {
            return Ok(Vec::new());
        }
        let made: BTreeSet<&str> = (view.steps.iter())
            .filter(|step| step.state != StepState::Done)
            .filter(|step| matches!(step.action, Action::Create | Action::Update | Action::Replace))
            .map(|step| step.resource.as_str())
            .collect();
        let environments: BTreeSet<String> =
            view.steps.iter().map(|step| names::environment_of(&step.resource)).collect();
        let mut rows = self.db.resources_of_project(permit, &view.op.project).await?;
        rows.retain(|row| {
            let near = row.environment.is_empty() || environments.contains(&row.environment);
            near && !row.identity.is_empty() && !made.contains(row.name.as_str())
        });
        let mut gone = Vec::new();
        for (name, sight) in self.look(rows.iter().map(ResourceRecord::from).collect()).await? {
            match sight.standing {
                Standing::Drifted(Drift::Gone) => gone.push(name),
                Standing::Untold(why) => {
                    let message = format!("it is not known whether `{name}` is there: {why}");
                    return Err(Problem::unavailable(message).with("resource", name).into());
                }
                Standing::AsRecorded | Standing::Drifted(_) => {}
            }
        }
        Ok(gone)
    }
}

/// Why it does not go on.
fn lost(gone: &[String]) -> String {
    let gone: Vec<String> = gone.iter().map(|name| format!("`{name}`")).collect();
    format!(
        "what this builds on is gone: {}. Repair the project (RepairProject) or update the environment, and take it up \
         again then; where it is in the way of that itself, give it up first with CancelOperation (`pavior op cancel`)",
        gone.join(", ")
    )
}
