//! Runs of pipelines, and what pipelines tell of their steps.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_resource::ListQuery;
use serde_json::Value;
use time::OffsetDateTime;

use crate::domain::failure::StepFailure;
use crate::domain::names::Parent;
use crate::domain::run::{Run, RunEvent, RunState};
use crate::domain::state::Lifecycle as _;
use crate::store::entity::run;
use crate::store::page::{Page, below};
use crate::store::prelude::*;
use crate::store::{advance, found};

from_row! {
    run::Model => Run {
        uid, project, pipeline, name, state, revision, cause, steps, artifacts, operation, creator, create_time,
        end_time
    } with {
        commit: commit_id, error: error.map(|typed| typed.0)
    } without {
        organization
    }
}

by_name! {
    /// A run.
    run, find_run, run => Run;
}

keyed! {
    /// The runs that operations made, by the names of the operations.
    runs_of_operations, run.Operation => Run.operation;
}

impl Db {
    /// Runs of a pipeline, newest first.
    pub async fn runs_page(&self, permit: &Permit, parent: &Parent, query: &ListQuery) -> Result<Page<Run>> {
        use run::Column as C;
        let fields = self.fields::<run::Entity>().text("commit", C::CommitId).enumeration(
            "state",
            C::State,
            words!(RunState),
        );
        let select = run::Entity::find().filter(C::Organization.eq(permit.organization())).filter(below(
            C::Pipeline,
            C::Project,
            parent,
        ));
        self.page(select, &fields, query).await
    }

    /// The newest run of each pipeline, whatever became of it, by the names of the pipelines.
    pub async fn latest_runs(
        &self,
        permit: &Permit,
        pipelines: Vec<String>,
    ) -> Result<BTreeMap<String, Run>> {
        use run::Column as C;
        if pipelines.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut newest = run::Entity::find()
            .select_only()
            .column(C::Pipeline)
            .column_as(C::CreateTime.max(), "newest")
            .filter(C::Organization.eq(permit.organization()))
            .filter(C::Pipeline.is_in(pipelines.clone()))
            .group_by(C::Pipeline);
        let newest = QuerySelect::query(&mut newest).to_owned();
        let rows = run::Entity::find()
            .filter(C::Organization.eq(permit.organization()))
            .filter(C::Pipeline.is_in(pipelines))
            .filter(Expr::tuple([Expr::col(C::Pipeline), Expr::col(C::CreateTime)]).in_subquery(newest))
            // Of two of the same moment the later id counts.
            .order_by_asc(C::Uid)
            .all(self.store.read())
            .await?;
        Ok(rows.into_iter().map(|row| (row.pipeline.clone(), Run::from(row))).collect())
    }

    /// The newest successful run of a project, or of one of its pipelines.
    pub async fn newest_run(&self, permit: &Permit, project: &str) -> Result<Option<Run>> {
        let row = run::Entity::find()
            .filter(run::Column::Organization.eq(permit.organization()))
            .filter(run::Column::Project.eq(project))
            .filter(run::Column::State.eq(RunState::Succeeded))
            .order_by_desc(run::Column::CreateTime)
            .order_by_desc(run::Column::Uid);
        self.one(row).await
    }
}

/// Moves a run to the state that an event leads to; one in which the event is not possible stays as it is.
pub(crate) async fn move_run(tx: &Tx, name: &str, event: RunEvent, set: run::ActiveModel) -> Result<()> {
    let row = run::Entity::update_many().set(set).filter(run::Column::Name.eq(name));
    advance::<_, RunState>(tx, row, run::Column::State, event).await
}

/// Lets a run that has ended without success be run again.
pub(crate) async fn reopen_run(tx: &Tx, name: &str) -> Result<()> {
    let set = run::ActiveModel { error: Set(None), end_time: Set(None), ..Default::default() };
    move_run(tx, name, RunEvent::Reopen, set).await
}

/// Ends a run that has not ended: what it was at is over with it, and what it had not begun is not run.
pub(crate) async fn end_run(
    tx: &Tx,
    name: &str,
    event: RunEvent,
    error: Option<StepFailure>,
    now: OffsetDateTime,
) -> Result<()> {
    let (_, from) = RunState::transition(event);
    let open = run::Entity::find()
        .filter(run::Column::Name.eq(name))
        .filter(run::Column::State.is_in(from.iter().copied()))
        .one(tx)
        .await?;
    let Some(open) = open else { return Ok(()) };
    let set = run::ActiveModel {
        error: Set(error.map(Typed)),
        steps: Set(ended_steps(open.steps, now)),
        end_time: Set(Some(now)),
        ..Default::default()
    };
    move_run(tx, name, event, set).await
}

/// The steps that a pipeline tells of, with the times (in microseconds) that its own stand for; nothing when it tells of
/// none.
pub(crate) fn timed_steps(told: &Value, now: OffsetDateTime) -> Option<Value> {
    let elapsed = told.get("elapsed_ms")?.as_i64()?;
    let begin = pavior_store::micros(now).saturating_sub(elapsed.saturating_mul(1_000));
    let mut steps = told.get("steps")?.as_array()?.clone();
    for step in steps.iter_mut().filter_map(Value::as_object_mut) {
        for (from, to) in [("start_ms", "start_time"), ("end_ms", "end_time")] {
            if let Some(at) = step.remove(from).and_then(|at| at.as_i64()) {
                step.insert(to.to_owned(), begin.saturating_add(at.saturating_mul(1_000)).into());
            }
        }
    }
    Some(steps.into())
}

/// The steps of a run that has ended: one under way ended with it, and those that had not begun are not run.
pub(crate) fn ended_steps(mut steps: Value, now: OffsetDateTime) -> Value {
    for step in steps.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        match step.get("state").and_then(Value::as_str) {
            Some("RUNNING") => {
                step.insert("state".to_owned(), "FAILED".into());
                step.insert("end_time".to_owned(), pavior_store::micros(now).into());
                step.insert("error".to_owned(), "the run was ended".into());
            }
            Some("PENDING") => drop(step.insert("state".to_owned(), "SKIPPED".into())),
            _ => {}
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_told_is_kept_with_its_time_and_ended_with_its_run() {
        let now = pavior_store::from_micros(1_000_000_000).unwrap();
        let told = json!({ "elapsed_ms": 500, "steps": [
            { "name": "build", "state": "SUCCEEDED", "exit_code": 0, "start_ms": 0, "end_ms": 100 },
            { "name": "test", "state": "RUNNING", "start_ms": 100 },
            { "name": "pack", "state": "PENDING" },
        ] });
        let kept = timed_steps(&told, now).unwrap();
        assert_eq!(kept[0]["start_time"], 999_500_000);
        assert_eq!(kept[0]["end_time"], 999_600_000);
        assert_eq!(timed_steps(&json!({ "name": "another driver's" }), now), None);
        let ended = ended_steps(kept, now);
        let states: Vec<&Value> = ended.as_array().unwrap().iter().map(|step| &step["state"]).collect();
        assert_eq!(states, ["SUCCEEDED", "FAILED", "SKIPPED"]);
        assert_eq!(ended[1]["end_time"], 1_000_000_000);
    }
}
