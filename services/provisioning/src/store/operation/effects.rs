//! What a step's completion does to the rows of resources, secrets, runs and deployments, in its transaction.

use pavior_core::audit::AuditEvent;
use serde_json::{Value, json};

use crate::domain::failure::{Failure, FailureCode, FailureReason};
use crate::domain::names;
use crate::domain::operation::{OperationState, Prior, StepEvent, StepState};
use crate::domain::plan::Action;
use crate::domain::resource::{ResourceEvent, ResourceState};
use crate::domain::run::RunEvent;
use crate::store::audit;
use crate::store::entity::{deployment, resource, run, secret, step};
use crate::store::operation::aggregate::Aggregate;
use crate::store::operation::completion::{Applied, Completion, RetryAfter, RunResult, StepError};
use crate::store::prelude::*;
use crate::store::resource::{forget, move_resource, note_url, set_resource};
use crate::store::run::{end_run, move_run, timed_steps};

/// The intent: what is seen while the driver is at it.
pub(crate) async fn begin(tx: &Tx, aggregate: &mut Aggregate, index: usize) -> Result<()> {
    let step = aggregate.at(index)?;
    if step.action == Action::Run && step.attempt == 1 {
        move_run(tx, &step.subject, RunEvent::Start, Default::default()).await?;
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
    let action = aggregate.at(index)?.action;
    let event = match completion {
        Completion::Applied(made) => {
            keep(this, tx, aggregate, index, made, false).await?;
            StepEvent::Succeed
        }
        Completion::Ran(result) => {
            ran(this, tx, aggregate, index, result).await?;
            StepEvent::Succeed
        }
        Completion::Destroyed => {
            forget(tx, &aggregate.at(index)?.resource).await?;
            StepEvent::Succeed
        }
        Completion::Failed { error, remains, again } => {
            failed(this, tx, aggregate, index, error, remains.as_deref(), *again).await?
        }
        Completion::Lost { error, again } => {
            let now = aggregate.clock;
            let step = aggregate.at(index)?;
            step.error = Some(Typed(error.failure()));
            // Whatever is found later: until it is done, it may have left something behind.
            step.remains = true;
            wait(step, *again, now);
            StepEvent::Lose
        }
        Completion::NoEffect => StepEvent::FoundAbsent,
        Completion::Removed => {
            let step = aggregate.at(index)?;
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
            let step = aggregate.at(index)?;
            step.error = Some(Typed(error.failure()));
            match again {
                Some(again) if !late => {
                    wait(step, *again, now);
                    StepEvent::UndoRetry
                }
                _ => StepEvent::UndoFail,
            }
        }
    };
    aggregate.step(index, event)?;
    let step = aggregate.at(index)?;
    if matches!(step.state, StepState::Done | StepState::Undone) {
        (step.waits, step.remains) = (0, false);
    }
    let told =
        matches!(step.state, StepState::Done | StepState::Failed | StepState::Undone | StepState::UndoStuck);
    if !told {
        return Ok(Vec::new());
    }
    let step = step.clone();
    Ok(vec![audit::step_event(this, &aggregate.op, &step)])
}

/// Lets a step wait for its next attempt. One that was none is given back.
fn wait(step: &mut step::Model, again: RetryAfter, now: i64) {
    step.not_before = now.saturating_add(again.after_micros);
    if again.counts {
        step.waits = 0;
        return;
    }
    step.waits = step.waits.saturating_add(1);
    match step.state {
        StepState::Running => step.attempt -= 1,
        StepState::Undoing => step.undo_attempt -= 1,
        // To look is no attempt.
        _ => {}
    }
}

async fn failed(
    this: &Db,
    tx: &Tx,
    aggregate: &mut Aggregate,
    index: usize,
    error: &StepError,
    remains: Option<&str>,
    again: Option<RetryAfter>,
) -> Result<StepEvent> {
    let now = aggregate.clock;
    let cancel_requested = aggregate.op.cancel_requested;
    let going_on = aggregate.op.state == OperationState::Running && !cancel_requested;
    let step = aggregate.at(index)?;
    step.error = Some(Typed(error.failure()));
    if let Some(identity) = remains {
        step.remains = true;
        if !identity.is_empty() {
            let set = resource::ActiveModel { identity: Set(identity.to_owned()), ..Default::default() };
            set_resource(tx, &step.resource, set).await?;
        }
    }
    // Only a call can be made again; what was observed to have failed has failed.
    if let (Some(again), true, StepState::Running) = (again, going_on, step.state) {
        wait(step, again, now);
        return Ok(StepEvent::Retry);
    }
    let cancelled = error.code == FailureCode::Cancelled;
    if step.action == Action::Run {
        let event = if cancelled { RunEvent::Cancel } else { RunEvent::Fail };
        end_run(tx, &step.subject, event, Some(error.failure()), this.now()).await?;
    } else {
        move_resource(tx, &step.resource, ResourceEvent::Fail).await?;
    }
    // A driver that was stopped because its time was up did not fail by anybody's wish.
    let wished = cancelled && cancel_requested;
    let reason = if wished { FailureReason::Cancelled } else { FailureReason::StepFailed };
    let StepError { code, message, details } = error.clone();
    let step = step.name.clone();
    aggregate.blame(Failure { reason, step, code, message, details, ..Failure::UNTOLD });
    Ok(StepEvent::Fail)
}

/// Records what was made. A restored resource gets back how it was made before, too.
async fn keep(
    this: &Db,
    tx: &Tx,
    aggregate: &mut Aggregate,
    index: usize,
    made: &Applied,
    restored: bool,
) -> Result<()> {
    let now = this.now();
    let step = aggregate.at(index)?;
    step.error = if restored { step.error.clone() } else { None };
    let spec = match (restored, &step.prior) {
        (true, Some(prior)) => prior.0.spec.clone(),
        _ => step.spec.0.clone(),
    };
    let set = resource::ActiveModel {
        identity: Set(made.identity.clone()),
        inputs: Set(made.inputs.clone()),
        outputs: Set(made.outputs.clone()),
        driver_state: Set(made.state.clone()),
        spec: Set(Typed(spec)),
        sealed_inputs: Set(made.sealed_inputs.clone()),
        driver_version: Set(step.driver_version.clone()),
        state: Set(ResourceState::Active),
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
        .await?;
    let row = rows.first().ok_or_else(|| Error::Corrupt(format!("resource `{}` is gone", step.resource)))?;
    note_url(tx, &row.name, &row.environment, &row.spec.0, &row.outputs, now).await?;
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
        secret::Entity::insert(row).on_conflict(replace).exec_without_returning(tx).await?;
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
            .await?;
    }
    Ok(())
}

/// What a replacement was to take the place of still stands: the row says again what it said before.
pub(crate) async fn put_back(this: &Db, tx: &Tx, step: &step::Model) -> Result<()> {
    let Some(Typed(former)) = &step.prior else { return Ok(()) };
    let Prior { identity, inputs, outputs, state, spec, sealed_inputs, generation: _ } = former.clone();
    let set = resource::ActiveModel {
        identity: Set(identity),
        inputs: Set(inputs),
        outputs: Set(outputs),
        driver_state: Set(state),
        spec: Set(Typed(spec)),
        sealed_inputs: Set(sealed_inputs),
        state: Set(ResourceState::Active),
        update_time: Set(this.now()),
        ..Default::default()
    };
    set_resource(tx, &step.resource, set).await?;
    let environment = names::environment_of(&step.resource);
    note_url(tx, &step.resource, &environment, &former.spec, &former.outputs, this.now()).await
}

async fn ran(this: &Db, tx: &Tx, aggregate: &mut Aggregate, index: usize, result: &RunResult) -> Result<()> {
    let step = aggregate.at(index)?;
    step.error = None;
    step.outputs =
        Some(json!({ "run": step.subject, "commit": result.commit, "artifacts": result.artifacts }));
    let set = run::ActiveModel {
        commit_id: Set(result.commit.clone()),
        steps: Set(timed_steps(&result.steps, this.now()).unwrap_or_else(|| json!([]))),
        artifacts: Set(result.artifacts.clone()),
        end_time: Set(Some(this.now())),
        ..Default::default()
    };
    move_run(tx, &step.subject, RunEvent::Succeed, set).await
}
