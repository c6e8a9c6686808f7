//! What the end of an operation, or an operator's verb, does to its target.

use pavior_core::audit::AuditEvent;
use pavior_store::{Tx, micros};
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, ExprTrait, QueryFilter, QueryOrder};
use serde_json::{Value, json};

use super::claim::action;
use super::entity::{deployment, environment, project, resource, run};
use super::journal::{Aggregate, step_state};
use super::{Db, audit, db, effects, timers, workloads};
use crate::domain::plan::{Action, Kind};
use crate::domain::state::{OperationEvent, OperationState, StepEvent, StepState};
use crate::error::{Error, Result};

/// Fails an operation whose time is up, and gives up what cannot be undone in time.
pub(crate) fn check_deadline(aggregate: &mut Aggregate) -> Result<()> {
    if !aggregate.late() {
        return Ok(());
    }
    if aggregate.state == OperationState::Compensating {
        return give_up(aggregate);
    }
    if matches!(aggregate.state, OperationState::Queued | OperationState::Running) {
        let message = "the operation took longer than it may";
        aggregate
            .blame(json!({ "reason": "STEP_FAILED", "step": "", "code": "TIMEOUT", "message": message }));
        aggregate.operation(OperationEvent::Fail)?;
    }
    Ok(())
}

/// An undo that waits for its next attempt has had its time. One that is under way has a limit of its own.
fn give_up(aggregate: &mut Aggregate) -> Result<()> {
    for index in 0..aggregate.steps.len() {
        let Some(step) = aggregate.steps.get_mut(index) else { break };
        if step_state(step)? != StepState::UndoReady {
            continue;
        }
        let last = step.error.as_ref().and_then(|error| error.get("message")).and_then(Value::as_str);
        let message = match last {
            Some(last) => format!("the undo took longer than it may; the last that was heard: {last}"),
            None => "the undo took longer than it may".to_owned(),
        };
        step.error = Some(json!({ "code": "TIMEOUT", "message": message }));
        aggregate.step(index, StepEvent::UndoFail)?;
    }
    Ok(())
}

/// Does what coming to rest asks for; to be called once, in the transaction in which the operation does.
pub(crate) async fn finish(this: &Db, tx: &Tx, aggregate: &mut Aggregate) -> Result<Vec<AuditEvent>> {
    match aggregate.state {
        OperationState::Succeeded => succeed(this, tx, aggregate).await?,
        OperationState::Stuck => {
            if aggregate.op.error.is_none() {
                aggregate
                    .blame(json!({ "reason": "OPERATION_STUCK", "step": "", "code": "", "message": "" }));
            }
            mark(tx, aggregate, "STUCK", "STUCK").await?;
        }
        _ => revert(this, tx, aggregate).await?,
    }
    if aggregate.unanswered() {
        timers::withdraw(this, tx, &aggregate.op).await?;
    }
    let approvals = aggregate.op.approvals.clone();
    Ok(vec![audit::ended_event(this, &aggregate.op, &approvals)])
}

/// Sets the state of everything that the operation holds: of its project, and of its environments.
pub(crate) async fn mark(
    tx: &Tx,
    aggregate: &Aggregate,
    of_project: &str,
    of_environments: &str,
) -> Result<()> {
    let name = aggregate.op.name.clone();
    project::Entity::update_many()
        .col_expr(project::Column::State, Expr::value(of_project))
        .filter(project::Column::Operation.eq(name.clone()))
        .exec(tx)
        .await
        .map_err(db)?;
    environment::Entity::update_many()
        .col_expr(environment::Column::State, Expr::value(of_environments))
        .filter(environment::Column::Operation.eq(name))
        .exec(tx)
        .await
        .map_err(db)?;
    Ok(())
}

/// Everything that the operation holds is worked on.
pub(crate) async fn mark_working(tx: &Tx, aggregate: &Aggregate) -> Result<()> {
    let state = working_state(aggregate.kind()?);
    mark(tx, aggregate, state, state).await
}

/// The state that the targets of an operation have while it works.
pub(crate) fn working_state(kind: Kind) -> &'static str {
    match kind {
        Kind::CreateProject | Kind::CreateEnvironment => "CREATING",
        Kind::UpdateEnvironment | Kind::Deploy | Kind::Run => "UPDATING",
        Kind::DestroyProject | Kind::DestroyEnvironment => "DELETING",
    }
}

async fn held_environments(tx: &Tx, aggregate: &Aggregate) -> Result<Vec<environment::Model>> {
    environment::Entity::find()
        .filter(environment::Column::Operation.eq(aggregate.op.name.clone()))
        .order_by_asc(environment::Column::Name)
        .all(tx)
        .await
        .map_err(db)
}

async fn release_project(this: &Db, tx: &Tx, aggregate: &Aggregate) -> Result<()> {
    project::Entity::update_many()
        .col_expr(project::Column::State, Expr::value("ACTIVE"))
        .col_expr(project::Column::Operation, Expr::value(""))
        .col_expr(project::Column::UpdateTime, Expr::value(this.now()))
        .col_expr(project::Column::Revision, Expr::col(project::Column::Revision).add(1))
        .filter(project::Column::Operation.eq(aggregate.op.name.clone()))
        .exec(tx)
        .await
        .map_err(db)?;
    Ok(())
}

async fn succeed(this: &Db, tx: &Tx, aggregate: &mut Aggregate) -> Result<()> {
    let kind = aggregate.kind()?;
    if matches!(kind, Kind::DestroyEnvironment | Kind::DestroyProject) {
        for environment in held_environments(tx, aggregate).await? {
            let name = environment.name.clone();
            if name == aggregate.op.target {
                let view = workloads::view(tx, &aggregate.op.organization, environment).await?;
                aggregate.op.gone = Some(kept(&view)?);
            }
            remove_environment(tx, &name).await?;
        }
        if kind == Kind::DestroyProject {
            let target = aggregate.op.target.clone();
            let project = project::Entity::find().filter(project::Column::Name.eq(&target)).one(tx).await;
            aggregate.op.gone = project.map_err(db)?.as_ref().map(kept).transpose()?;
            remove_project(tx, &target).await?;
        }
        return Ok(());
    }
    for environment in held_environments(tx, aggregate).await? {
        settle_environment(this, tx, aggregate, environment).await?;
    }
    release_project(this, tx, aggregate).await
}

/// What is shown of a target, kept behind its end for the answer of the operation that took it down.
fn kept(shown: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(shown).map_err(|error| Error::Corrupt(error.to_string()))
}

/// An environment is as asked: the new deployment runs, the settings of the request hold.
async fn settle_environment(
    this: &Db,
    tx: &Tx,
    aggregate: &Aggregate,
    row: environment::Model,
) -> Result<()> {
    let now = this.now();
    let mut set = environment::ActiveModel {
        state: Set("ACTIVE".into()),
        operation: Set(String::new()),
        update_time: Set(now),
        revision: Set(row.revision + 1),
        ..Default::default()
    };
    workloads::activate(tx, &row.name, &aggregate.op.name, now).await?;
    let settings = aggregate.op_settings();
    if aggregate.kind()? == Kind::UpdateEnvironment {
        if let Some(name) = settings.get("display_name").and_then(Value::as_str) {
            set.display_name = Set(name.to_owned());
        }
        if let Some(parameters) = settings.get("parameters") {
            set.parameters = Set(parameters.clone());
        }
    }
    let keeps = settings.get("keeps_end").and_then(Value::as_bool).unwrap_or_default();
    if aggregate.kind()? != Kind::Deploy && !keeps {
        let begin = pavior_store::from_micros(this.wall_time(tx).await?).unwrap_or(now);
        let (ttl, said) = match aggregate.kind()? {
            Kind::UpdateEnvironment => {
                let said = settings.get("expire_time").and_then(Value::as_i64);
                (
                    settings.get("ttl_seconds").and_then(Value::as_i64),
                    said.and_then(pavior_store::from_micros),
                )
            }
            _ => (row.ttl_seconds, row.expire_time),
        };
        let expire = ttl.map(|seconds| begin + time::Duration::seconds(seconds)).or(said);
        set.ttl_seconds = Set(ttl);
        set.expire_time = Set(expire);
        timers::replace(this, tx, &row.organization, timers::EXPIRE, &row.name, expire.map(micros)).await?;
    }
    environment::Entity::update_many()
        .set(set)
        .filter(environment::Column::Uid.eq(row.uid))
        .exec(tx)
        .await
        .map_err(db)?;
    Ok(())
}

/// Nothing of the operation stands any more: its targets are as before, or gone.
async fn revert(this: &Db, tx: &Tx, aggregate: &Aggregate) -> Result<()> {
    let now = this.now();
    for step in &aggregate.steps {
        match action(step)? {
            Action::Create if step.state != "DONE" => effects::forget(tx, &step.resource).await?,
            Action::Update | Action::Replace | Action::Delete => {
                let set = resource::ActiveModel { state: Set("ACTIVE".into()), ..Default::default() };
                effects::set_resource(tx, &step.resource, set).await?;
            }
            Action::Run => {
                let set = run::ActiveModel { state: Set("CANCELLED".into()), ..Default::default() };
                effects::end_run(tx, &step.subject, set, now).await?;
            }
            _ => {}
        }
    }
    match aggregate.kind()? {
        Kind::CreateProject => {
            for environment in held_environments(tx, aggregate).await? {
                remove_environment(tx, &environment.name).await?;
            }
            remove_project(tx, &aggregate.op.target).await
        }
        Kind::CreateEnvironment => remove_environment(tx, &aggregate.op.target).await,
        Kind::UpdateEnvironment
        | Kind::Deploy
        | Kind::DestroyEnvironment
        | Kind::DestroyProject
        | Kind::Run => {
            for environment in held_environments(tx, aggregate).await? {
                workloads::fail_pending(tx, &environment.name, now).await?;
                let set = environment::ActiveModel {
                    state: Set("ACTIVE".into()),
                    operation: Set(String::new()),
                    update_time: Set(now),
                    revision: Set(environment.revision + 1),
                    ..Default::default()
                };
                environment::Entity::update_many()
                    .set(set)
                    .filter(environment::Column::Uid.eq(environment.uid))
                    .exec(tx)
                    .await
                    .map_err(db)?;
            }
            release_project(this, tx, aggregate).await
        }
    }
}

async fn remove_environment(tx: &Tx, name: &str) -> Result<()> {
    let left =
        resource::Entity::find().filter(resource::Column::Environment.eq(name)).all(tx).await.map_err(db)?;
    for row in left {
        effects::forget(tx, &row.name).await?;
    }
    deployment::Entity::delete_many()
        .filter(deployment::Column::Environment.eq(name))
        .exec(tx)
        .await
        .map_err(db)?;
    timers::remove(tx, name).await?;
    environment::Entity::delete_many()
        .filter(environment::Column::Name.eq(name))
        .exec(tx)
        .await
        .map_err(db)?;
    Ok(())
}

async fn remove_project(tx: &Tx, name: &str) -> Result<()> {
    let left =
        resource::Entity::find().filter(resource::Column::Project.eq(name)).all(tx).await.map_err(db)?;
    for row in left {
        effects::forget(tx, &row.name).await?;
    }
    run::Entity::delete_many().filter(run::Column::Project.eq(name)).exec(tx).await.map_err(db)?;
    deployment::Entity::delete_many()
        .filter(deployment::Column::Project.eq(name))
        .exec(tx)
        .await
        .map_err(db)?;
    project::Entity::delete_many().filter(project::Column::Name.eq(name)).exec(tx).await.map_err(db)?;
    Ok(())
}
