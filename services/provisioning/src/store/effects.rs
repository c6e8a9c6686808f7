//! What a step's completion does to the rows of resources, secrets, runs and deployments, in its transaction.

use pavior_core::audit::AuditEvent;
use pavior_store::Tx;
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, ExprTrait, QueryFilter};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::audit;
use super::claim::{Again, Completion, Made, RunResult, action};
use super::entity::{deployment, resource, run, secret, step};
use super::journal::{Aggregate, step_state};
use super::told::{ended_steps, timed_steps};
use super::workloads::note_url;
use super::{Db, db};
use crate::domain::names;
use crate::domain::plan::Action;
use crate::domain::state::{OperationState, StepEvent, StepState};
use crate::error::{Error, Result};

/// The intent: what is seen while the driver is at it.
pub(crate) async fn begin(tx: &Tx, aggregate: &Aggregate, index: usize) -> Result<()> {
    let Some(step) = aggregate.steps.get(index) else { return Ok(()) };
    if action(step)? == Action::Run && step.attempt == 1 {
        set_run(tx, &step.subject, run::ActiveModel { state: Set("RUNNING".into()), ..Default::default() })
            .await?;
    }
    Ok(())
}

/// Applies a completion to its step and to what it is about. Returns what is to be audited.
pub(crate) async fn complete(
    this: &Db,
    tx: &Tx,
    aggregate: &mut Aggregate,
    index: usize,
    completion: &Completion,
) -> Result<Vec<AuditEvent>> {
    let gone = || Error::Corrupt("the step is gone".to_owned());
    let action = action(aggregate.steps.get(index).ok_or_else(gone)?)?;
    let event = match completion {
        Completion::Made(made) => {
            keep(this, tx, aggregate, index, made, false).await?;
            StepEvent::Succeed
        }
        Completion::Ran(result) => {
            ran(this, tx, aggregate, index, result).await?;
            StepEvent::Succeed
        }
        Completion::Destroyed => {
            forget(tx, &aggregate.steps.get(index).ok_or_else(gone)?.resource).await?;
            StepEvent::Succeed
        }
        Completion::Failed { error, remains, again } => {
            failed(this, tx, aggregate, index, error, remains.as_deref(), *again).await?
        }
        Completion::Lost { error, again } => {
            let now = aggregate.clock;
            let step = aggregate.steps.get_mut(index).ok_or_else(gone)?;
            step.error = Some(error.to_json());
            // Whatever is found later: until it is done, it may have left something behind.
            step.remains = true;
            wait(step, *again, now)?;
            StepEvent::Lose
        }
        Completion::NoEffect => StepEvent::FoundAbsent,
        Completion::Removed => {
            let step = aggregate.steps.get(index).ok_or_else(gone)?;
            match action {
                Action::Create => forget(tx, &step.resource).await?,
                Action::Replace => put_back(this, tx, step).await?,
                _ => {}
            }
            StepEvent::UndoSucceed
        }
        Completion::Restored(made) => {
            keep(this, tx, aggregate, index, made, true).await?;
            StepEvent::UndoSucceed
        }
        Completion::UndoFailed { error, again } => {
            let (now, late) = (aggregate.clock, aggregate.late());
            let step = aggregate.steps.get_mut(index).ok_or_else(gone)?;
            step.error = Some(error.to_json());
            match again {
                Some(again) if !late => {
                    wait(step, *again, now)?;
                    StepEvent::UndoRetry
                }
                _ => StepEvent::UndoFail,
            }
        }
    };
    aggregate.step(index, event)?;
    let step = aggregate.steps.get_mut(index).ok_or_else(gone)?;
    if matches!(StepState::parse(&step.state), Some(StepState::Done | StepState::Undone)) {
        (step.waits, step.remains) = (0, false);
    }
    let told = matches!(
        StepState::parse(&step.state),
        Some(StepState::Done | StepState::Failed | StepState::Undone | StepState::UndoStuck)
    );
    Ok(if told { vec![audit::step_event(this, &aggregate.op, step)] } else { Vec::new() })
}

/// Lets a step wait for its next attempt. One that was none is given back.
fn wait(step: &mut step::Model, again: Again, now: i64) -> Result<()> {
    step.not_before = now.saturating_add(again.after_micros);
    if again.counts {
        step.waits = 0;
        return Ok(());
    }
    step.waits = step.waits.saturating_add(1);
    match step_state(step)? {
        StepState::Running => step.attempt -= 1,
        StepState::Undoing => step.undo_attempt -= 1,
        // To look is no attempt.
        _ => {}
    }
    Ok(())
}

async fn failed(
    this: &Db,
    tx: &Tx,
    aggregate: &mut Aggregate,
    index: usize,
    error: &super::StepError,
    remains: Option<&str>,
    again: Option<Again>,
) -> Result<StepEvent> {
    let now = aggregate.clock;
    let going_on = aggregate.state == OperationState::Running && !aggregate.op.cancel_requested;
    let Some(step) = aggregate.steps.get_mut(index) else { return Ok(StepEvent::Fail) };
    step.error = Some(error.to_json());
    if let Some(identity) = remains {
        step.remains = true;
        if !identity.is_empty() {
            let set = resource::ActiveModel { identity: Set(identity.to_owned()), ..Default::default() };
            set_resource(tx, &step.resource, set).await?;
        }
    }
    // Only a call can be made again; what was observed to have failed has failed.
    if let (Some(again), true, Some(StepState::Running)) = (again, going_on, StepState::parse(&step.state)) {
        wait(step, again, now)?;
        return Ok(StepEvent::Retry);
    }
    let (name, subject, is_run) = (step.name.clone(), step.subject.clone(), action(step)? == Action::Run);
    let set = resource::ActiveModel { state: Set("FAILED".into()), ..Default::default() };
    if is_run {
        let state = if error.code == "CANCELLED" { "CANCELLED" } else { "FAILED" };
        let error = Set(Some(error.to_json()));
        let set = run::ActiveModel { state: Set(state.into()), error, ..Default::default() };
        end_run(tx, &subject, set, this.now()).await?;
    } else {
        set_resource(tx, &step.resource, set).await?;
    }
    // A driver that was stopped because its time was up did not fail by anybody's wish.
    let wished = error.code == "CANCELLED" && aggregate.op.cancel_requested;
    let reason = if wished { "CANCELLED" } else { "STEP_FAILED" };
    aggregate.blame(json!({
        "reason": reason,
        "step": name,
        "code": error.code,
        "message": error.message,
        "details": error.details,
    }));
    Ok(StepEvent::Fail)
}

/// Records what was made. A restored resource gets back how it was made before, too.
async fn keep(
    this: &Db,
    tx: &Tx,
    aggregate: &mut Aggregate,
    index: usize,
    made: &Made,
    restored: bool,
) -> Result<()> {
    let now = this.now();
    let Some(step) = aggregate.steps.get_mut(index) else { return Ok(()) };
    step.error = if restored { step.error.clone() } else { None };
    let spec = match (restored, &step.prior) {
        (true, Some(prior)) => prior.get("spec").cloned().unwrap_or_default(),
        _ => step.spec.clone(),
    };
    let set = resource::ActiveModel {
        identity: Set(made.identity.clone()),
        inputs: Set(made.inputs.clone()),
        outputs: Set(made.outputs.clone()),
        driver_state: Set(made.state.clone()),
        spec: Set(spec),
        sealed_inputs: Set(made.sealed_inputs.clone()),
        driver_version: Set(step.driver_version.clone()),
        state: Set("ACTIVE".into()),
        fence: Set(step.fence),
        update_time: Set(now),
        ..Default::default()
    };
    let rows = resource::Entity::update_many()
        .set(set)
        .col_expr(resource::Column::Generation, Expr::col(resource::Column::Generation).add(1))
        .col_expr(resource::Column::Revision, Expr::col(resource::Column::Revision).add(1))
        .filter(resource::Column::Name.eq(step.resource.clone()))
        .exec_with_returning(tx)
        .await
        .map_err(db)?;
    let row = rows.first().ok_or_else(|| Error::Corrupt(format!("resource `{}` is gone", step.resource)))?;
    note_url(tx, &row.name, &row.environment, &row.spec, &row.outputs, now).await?;
    for sealed in &made.secrets {
        let row = secret::ActiveModel {
            reference: Set(sealed.reference.clone()),
            resource: Set(row.uid),
            sealed: Set(sealed.bytes.clone()),
            create_time: Set(now),
        };
        let replace = sea_orm::sea_query::OnConflict::column(secret::Column::Reference)
            .update_column(secret::Column::Sealed)
            .to_owned();
        secret::Entity::insert(row).on_conflict(replace).exec_without_returning(tx).await.map_err(db)?;
    }
    if let (Some(artifact), false) = (&made.artifact, restored || step.subject.is_empty()) {
        let text = |key: &str| artifact.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let set = deployment::ActiveModel {
            run: Set(text("run")),
            commit_id: Set(text("commit")),
            artifact: Set(artifact.clone()),
            url: Set(made.outputs.get("url").and_then(Value::as_str).unwrap_or_default().to_owned()),
            update_time: Set(now),
            ..Default::default()
        };
        deployment::Entity::update_many()
            .set(set)
            .filter(deployment::Column::Name.eq(step.subject.clone()))
            .exec(tx)
            .await
            .map_err(db)?;
    }
    Ok(())
}

/// What a replacement was to take the place of still stands: the row says again what it said before.
async fn put_back(this: &Db, tx: &Tx, step: &step::Model) -> Result<()> {
    let Some(former) = &step.prior else { return Ok(()) };
    let text = |key: &str| former.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let part = |key: &str| former.get(key).cloned().unwrap_or_default();
    let set = resource::ActiveModel {
        identity: Set(text("identity")),
        inputs: Set(part("inputs")),
        outputs: Set(part("outputs")),
        driver_state: Set(part("state")),
        spec: Set(part("spec")),
        sealed_inputs: Set(text("sealed_inputs")),
        state: Set("ACTIVE".into()),
        update_time: Set(this.now()),
        ..Default::default()
    };
    set_resource(tx, &step.resource, set).await?;
    let environment = names::environment_of(&step.resource);
    note_url(tx, &step.resource, &environment, &part("spec"), &part("outputs"), this.now()).await
}

async fn ran(this: &Db, tx: &Tx, aggregate: &mut Aggregate, index: usize, result: &RunResult) -> Result<()> {
    let Some(step) = aggregate.steps.get_mut(index) else { return Ok(()) };
    step.error = None;
    step.outputs =
        Some(json!({ "run": step.subject, "commit": result.commit, "artifacts": result.artifacts }));
    let set = run::ActiveModel {
        state: Set("SUCCEEDED".into()),
        commit_id: Set(result.commit.clone()),
        steps: Set(timed_steps(&result.steps, this.now()).unwrap_or_else(|| json!([]))),
        artifacts: Set(result.artifacts.clone()),
        end_time: Set(Some(this.now())),
        ..Default::default()
    };
    set_run(tx, &step.subject, set).await
}

async fn set_run(tx: &Tx, name: &str, set: run::ActiveModel) -> Result<()> {
    run::Entity::update_many().set(set).filter(run::Column::Name.eq(name)).exec(tx).await.map_err(db)?;
    Ok(())
}

/// Ends a run that has not ended: what it was at is over with it, and what it had not begun is not run.
pub(crate) async fn end_run(tx: &Tx, name: &str, set: run::ActiveModel, now: OffsetDateTime) -> Result<()> {
    let open = run::Entity::find()
        .filter(run::Column::Name.eq(name))
        .filter(run::Column::State.is_in(["QUEUED", "RUNNING"]))
        .one(tx)
        .await
        .map_err(db)?;
    let Some(open) = open else { return Ok(()) };
    let steps = Set(ended_steps(open.steps, now));
    set_run(tx, name, run::ActiveModel { steps, end_time: Set(Some(now)), ..set }).await
}

pub(crate) async fn set_resource(tx: &Tx, name: &str, set: resource::ActiveModel) -> Result<()> {
    resource::Entity::update_many()
        .set(set)
        .filter(resource::Column::Name.eq(name))
        .exec(tx)
        .await
        .map_err(db)?;
    Ok(())
}

/// Deletes a resource's row and its secrets.
pub(crate) async fn forget(tx: &Tx, name: &str) -> Result<()> {
    let Some(row) =
        resource::Entity::find().filter(resource::Column::Name.eq(name)).one(tx).await.map_err(db)?
    else {
        return Ok(());
    };
    secret::Entity::delete_many().filter(secret::Column::Resource.eq(row.uid)).exec(tx).await.map_err(db)?;
    resource::Entity::delete_by_id(row.uid).exec(tx).await.map_err(db)?;
    // Nothing runs in a workload that is gone.
    let over = deployment::ActiveModel { state: Set("SUPERSEDED".to_owned()), ..Default::default() };
    deployment::Entity::update_many()
        .set(over)
        .filter(deployment::Column::Environment.eq(row.environment))
        .filter(deployment::Column::Resource.eq(name))
        .filter(deployment::Column::State.eq("ACTIVE"))
        .exec(tx)
        .await
        .map_err(db)?;
    Ok(())
}
