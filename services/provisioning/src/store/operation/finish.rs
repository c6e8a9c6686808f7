//! What the end of an operation, or an operator's request, does to its target.

use pavior_core::audit::AuditEvent;
use pavior_store::micros;
use serde_json::Value;

use crate::domain::environment::{EnvironmentEvent, EnvironmentState, EnvironmentView};
use crate::domain::failure::{Failure, FailureCode, FailureReason, StepFailure};
use crate::domain::operation::{OperationEvent, OperationState, StepEvent, StepState};
use crate::domain::plan::{Action, Kind};
use crate::domain::project::{ProjectEvent, ProjectState};
use crate::domain::resource::ResourceEvent;
use crate::domain::run::RunEvent;
use crate::domain::state::Lifecycle as _;
use crate::domain::timer::TimerKind;
use crate::store::deployment::{activate, fail_pending};
use crate::store::entity::operation::RemovedRow;
use crate::store::entity::{environment, project};
use crate::store::environment::{change_environment, held_environments, remove_environment, view};
use crate::store::operation::aggregate::Aggregate;
use crate::store::operation::effects::put_back;
use crate::store::prelude::*;
use crate::store::project::{release_project, remove_project};
use crate::store::resource::{forget, move_resource};
use crate::store::run::end_run;
use crate::store::{advance, audit, timer};

/// Fails an operation whose time is up, and gives up what cannot be undone in time.
pub(crate) fn check_deadline(aggregate: &mut Aggregate) -> Result<()> {
    if !aggregate.late() {
        return Ok(());
    }
    if aggregate.op.state == OperationState::Compensating {
        return give_up(aggregate);
    }
    if matches!(aggregate.op.state, OperationState::Queued | OperationState::Running) {
        let message = "the operation took longer than it may";
        aggregate.blame(Failure::new(FailureReason::StepFailed, FailureCode::Timeout, message));
        aggregate.operation(OperationEvent::Fail)?;
    }
    Ok(())
}

/// An undo that waits for its next attempt has had its time. One that is under way has a limit of its own.
fn give_up(aggregate: &mut Aggregate) -> Result<()> {
    for index in 0..aggregate.steps.len() {
        let step = aggregate.at(index)?;
        if step.state != StepState::UndoReady {
            continue;
        }
        let message = match &step.error {
            Some(Typed(last)) => {
                format!("the undo took longer than it may; the last that was heard: {}", last.message)
            }
            None => "the undo took longer than it may".to_owned(),
        };
        step.error = Some(Typed(StepFailure { code: FailureCode::Timeout, message }));
        aggregate.step(index, StepEvent::UndoFail)?;
    }
    Ok(())
}

/// Does what coming to rest asks for; to be called once, in the transaction in which the operation does.
pub(crate) async fn finish(this: &Db, tx: &Tx, aggregate: &mut Aggregate) -> Result<Vec<AuditEvent>> {
    match aggregate.op.state {
        OperationState::Succeeded => succeed(this, tx, aggregate).await?,
        OperationState::Stuck => {
            aggregate.blame(Failure::new(FailureReason::OperationStuck, FailureCode::None, ""));
            mark(tx, aggregate, Some(ProjectEvent::Stick), EnvironmentEvent::Stick).await?;
        }
        _ => revert(this, tx, aggregate).await?,
    }
    if aggregate.unanswered() {
        timer::withdraw(this, tx, &aggregate.op).await?;
    }
    Ok(vec![audit::ended_event(this, &aggregate.op)])
}

/// Moves everything that the operation holds: its project, and its environments.
pub(crate) async fn mark(
    tx: &Tx,
    aggregate: &Aggregate,
    of_project: Option<ProjectEvent>,
    of_environments: EnvironmentEvent,
) -> Result<()> {
    let name = &aggregate.op.name;
    if let Some(event) = of_project {
        let held = project::Entity::update_many().filter(project::Column::Operation.eq(name));
        advance::<_, ProjectState>(tx, held, project::Column::State, event).await?;
    }
    let held = environment::Entity::update_many().filter(environment::Column::Operation.eq(name));
    advance::<_, EnvironmentState>(tx, held, environment::Column::State, of_environments).await
}

/// Everything that the operation holds is worked on.
pub(crate) async fn mark_working(tx: &Tx, aggregate: &Aggregate) -> Result<()> {
    let (of_project, of_environments) = works_on(aggregate.op.kind);
    mark(tx, aggregate, of_project, of_environments).await
}

/// What happens to the project and to the environments that an operation holds while it works.
pub(crate) fn works_on(kind: Kind) -> (Option<ProjectEvent>, EnvironmentEvent) {
    match kind {
        Kind::CreateProject => (Some(ProjectEvent::Create), EnvironmentEvent::Create),
        Kind::CreateEnvironment => (None, EnvironmentEvent::Create),
        Kind::UpdateEnvironment | Kind::Deploy | Kind::Run => (None, EnvironmentEvent::Update),
        // Of an orphan, what the thing is in that has its name now.
        Kind::RepairProject | Kind::DeleteOrphan => (Some(ProjectEvent::Update), EnvironmentEvent::Update),
        Kind::DestroyProject => (Some(ProjectEvent::Delete), EnvironmentEvent::Delete),
        Kind::DestroyEnvironment => (None, EnvironmentEvent::Delete),
    }
}

async fn succeed(this: &Db, tx: &Tx, aggregate: &mut Aggregate) -> Result<()> {
    let kind = aggregate.op.kind;
    if matches!(kind, Kind::DestroyEnvironment | Kind::DestroyProject) {
        for environment in held_environments(tx, &aggregate.op.name).await? {
            let name = environment.name.clone();
            if name == aggregate.op.target {
                aggregate.op.gone = Some(removed_environment(tx, environment).await?);
            }
            remove_environment(tx, &name).await?;
        }
        if kind == Kind::DestroyProject {
            let target = aggregate.op.target.clone();
            let project = project::Entity::find().filter(project::Column::Name.eq(&target)).one(tx).await;
            aggregate.op.gone = project?.map(|row| Typed(RemovedRow::Project(Box::new(row))));
            remove_project(tx, &target).await?;
        }
        return Ok(());
    }
    for environment in held_environments(tx, &aggregate.op.name).await? {
        settle_environment(this, tx, aggregate, environment).await?;
    }
    release_project(this, tx, &aggregate.op.name).await
}

/// An environment as it is shown, kept behind its end for the answer of the operation that removed it.
async fn removed_environment(tx: &Tx, row: environment::Model) -> Result<Typed<RemovedRow>> {
    let EnvironmentView { environment: _, endpoints, deployments } =
        view(tx, &row.organization, row.clone().into()).await?;
    Ok(Typed(RemovedRow::Environment { row: Box::new(row), endpoints, deployments }))
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
        state: Set(row.state.next(EnvironmentEvent::Settle)?),
        operation: Set(String::new()),
        ..Default::default()
    };
    activate(tx, &row.name, &aggregate.op.name, now).await?;
    let settings = &aggregate.op.settings;
    if aggregate.op.kind == Kind::UpdateEnvironment {
        if let Some(name) = settings.get("display_name").and_then(Value::as_str) {
            set.display_name = Set(name.to_owned());
        }
        if let Some(parameters) = settings.get("parameters") {
            set.parameters = Set(parameters.clone());
        }
    }
    let keeps = settings.get("keeps_end").and_then(Value::as_bool).unwrap_or_default();
    if !matches!(aggregate.op.kind, Kind::Deploy | Kind::DeleteOrphan) && !keeps {
        let begin = pavior_store::from_micros(this.wall_time(tx).await?).unwrap_or(now);
        let (ttl, said) = match aggregate.op.kind {
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
        timer::replace(this, tx, &row.organization, TimerKind::Expire, &row.name, expire.map(micros)).await?;
    }
    change_environment(tx, &row, set, now).await
}

/// Nothing of the operation stands any more: its targets are as before, or gone.
async fn revert(this: &Db, tx: &Tx, aggregate: &Aggregate) -> Result<()> {
    let now = this.now();
    let goes = matches!(aggregate.op.kind, Kind::CreateProject | Kind::CreateEnvironment)
        && aggregate.op.parked.is_some();
    for step in &aggregate.steps {
        match step.action {
            // Of one that was given up, what it had made is nobody's by now, as its project or environment goes.
            Action::Create if step.state != StepState::Done || goes => forget(tx, &step.resource).await?,
            // It was recorded for this operation only.
            Action::Delete if aggregate.op.kind == Kind::DeleteOrphan => forget(tx, &step.resource).await?,
            // What drivers have stays, and is seen to differ from what is recorded.
            Action::Update if given_up(aggregate, step.state) => put_back(this, tx, step).await?,
            Action::Update | Action::Replace | Action::Delete if aggregate.holds() => {
                move_resource(tx, &step.resource, ResourceEvent::Settle).await?;
            }
            Action::Run => {
                end_run(tx, &step.subject, RunEvent::Cancel, None, now).await?;
            }
            _ => {}
        }
    }
    match aggregate.op.kind {
        Kind::CreateProject => {
            for environment in held_environments(tx, &aggregate.op.name).await? {
                remove_environment(tx, &environment.name).await?;
            }
            remove_project(tx, &aggregate.op.target).await
        }
        Kind::CreateEnvironment => remove_environment(tx, &aggregate.op.target).await,
        Kind::DeleteOrphan
        | Kind::UpdateEnvironment
        | Kind::RepairProject
        | Kind::Deploy
        | Kind::DestroyEnvironment
        | Kind::DestroyProject
        | Kind::Run => {
            for environment in held_environments(tx, &aggregate.op.name).await? {
                fail_pending(tx, &environment.name, now).await?;
                let set = environment::ActiveModel {
                    state: Set(environment.state.next(EnvironmentEvent::Settle)?),
                    operation: Set(String::new()),
                    ..Default::default()
                };
                change_environment(tx, &environment, set, now).await?;
            }
            release_project(this, tx, &aggregate.op.name).await
        }
    }
}

/// Whether what was changed stays so although the operation is over.
fn given_up(aggregate: &Aggregate, step: StepState) -> bool {
    aggregate.op.parked.is_some() && matches!(step, StepState::Done | StepState::UndoStuck)
}
