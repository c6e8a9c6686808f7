//! Mending what a project has itself: as an operation of its own, which holds the project while it works, so that nobody
//! else works on the same things meanwhile.

use pavior_rpc::{ErrorReason, Problem};
use serde_json::json;

use super::environment::costs_of;
use super::facts::project_subject;
use super::submit::{Effect, Proposal, Target};
use super::{Answer, App, ChangeContext};
use crate::domain::drift::Drift;
use crate::domain::names;
use crate::domain::plan::{Action, Change, Kind};
use crate::error::Result;

impl App {
    /// Makes anew what a project has itself, and what is gone or differs from its record.
    pub(crate) async fn repair_project(&self, context: &ChangeContext, name: &str) -> Result<Answer> {
        Self::name(&context.permit, context.action, "name", name, names::PROJECT)?;
        if let Some(answer) = self.replayed(context).await? {
            return Ok(answer);
        }
        let ground = self.ground(context, name).await?;
        let facts = self.facts_to_repair(context, &ground).await?;
        let changes = self.changes(&facts).await?;
        refuse_losses(&changes)?;
        let project = &ground.project;
        // Where people are asked first, the project is taken when they have agreed, if it is this one still.
        let settings = json!({ "uid": project.uid, "revision": project.revision });
        let target = Target::new(project, project_subject(project), Vec::new());
        let proposal = Proposal {
            target: Target { costs: costs_of(&ground.rows, ""), ..target },
            changes,
            effect: Effect::new(Kind::RepairProject, "repair project", settings),
        };
        self.submit(context, proposal).await
    }
}

/// To mend is not to lose: what is there is not replaced because definitions or templates say something else by now.
fn refuse_losses(changes: &[Change]) -> Result<()> {
    let lost = |change: &&Change| change.action == Action::Replace && change.drift != Some(Drift::Gone);
    let mut lost = changes.iter().filter(lost).peekable();
    let Some(first) = lost.peek() else { return Ok(()) };
    let message = format!("`{}` would be replaced, and what is in it be lost", first.resource);
    let problem = Problem::precondition(ErrorReason::InvalidState, message);
    let fix = "let the definition that matches it say again what is recorded";
    Err(lost.fold(problem, |problem, change| problem.because("STATE", &change.resource, fix)).into())
}
