//! Holding what an operation works on, so that no other operation does: checked and written under the same lock.

use std::collections::{BTreeMap, BTreeSet};

use pavior_auth::Permit;
use pavior_store::StoreError;
use sea_orm::ConnectionTrait;
use sea_orm::sea_query::IntoCondition;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::environment::{EnvironmentEvent, EnvironmentState};
use crate::domain::names;
use crate::domain::operation::{Operation, OperationState};
use crate::domain::plan::{Action, Kind, Plan};
use crate::domain::project::{ProjectEvent, ProjectState};
use crate::domain::resource::ResourceEvent;
use crate::domain::state::Lifecycle as _;
use crate::store::entity::operation::Column::State;
use crate::store::entity::{environment, operation, project, resource};
use crate::store::operation::accept::{Admission, NewEnvironment, NewOperation, Seen};
use crate::store::operation::aggregate::Aggregate;
use crate::store::operation::finish;
use crate::store::prelude::*;
use crate::store::resource::{move_resource, recorded_as};

/// The numbers of what an operation makes.
pub(crate) struct Numbers {
    /// The number of its run.
    pub(crate) run: i64,
    /// The number of the next deployment of each environment.
    pub(crate) deployments: BTreeMap<String, i64>,
}

impl Db {
    /// Makes or takes what the operation works on, so that no other operation does.
    ///
    /// Whatever works in a project takes its row first. Until the commit nobody else is accepted in it, so that what is
    /// looked at afterwards is all there is: also where the database shows nothing that is not committed.
    pub(crate) async fn hold_target(&self, tx: &Tx, new: &NewOperation, op: &str) -> Result<Numbers> {
        let project = names::project_of(&new.plan.target);
        let runs = new.plan.changes.iter().any(|change| change.action == Action::Run);
        let run = match new.plan.kind {
            Kind::CreateProject => {
                self.insert_project(tx, new, op, i64::from(runs)).await?;
                1
            }
            Kind::CreateEnvironment | Kind::Run => {
                hold_project(tx, &project, op, None, &new.seen, runs).await?
            }
            Kind::DestroyProject => {
                hold_project(tx, &project, op, Some(ProjectEvent::Delete), &new.seen, false).await?;
                // Also those that wait for people or for an operator: what they work on is gone by then.
                refuse_others(tx, &project, op, State.is_not_in(OperationState::DONE)).await?;
                self.hold_environments(tx, &project, new, op).await?;
                0
            }
            Kind::RepairProject | Kind::DeleteOrphan => self.hold_ground(tx, new, op).await?,
            Kind::UpdateEnvironment | Kind::Deploy | Kind::DestroyEnvironment => {
                let run = hold_project(tx, &project, op, None, &new.seen, runs).await?;
                let event = match new.admission {
                    Admission::AskPeople => EnvironmentEvent::AskPeople,
                    Admission::Run => finish::works_on(new.plan.kind).1,
                };
                hold_environment(tx, &new.plan.target, op, event, &new.seen, self.now()).await?;
                run
            }
        };
        for environment in &new.makes.environments {
            self.insert_environment(tx, new, environment, op).await?;
        }
        let mut deployments = BTreeMap::new();
        for (environment, count) in deployments_of(&new.plan) {
            let rows = environment::Entity::update_many()
                .col_expr(
                    environment::Column::DeploymentSeq,
                    Expr::col(environment::Column::DeploymentSeq).add(count),
                )
                .filter(environment::Column::Name.eq(environment.clone()))
                .exec_with_returning(tx)
                .await?;
            let last = rows.first().map_or(count, |row| row.deployment_seq);
            deployments.insert(environment, last - count + 1);
        }
        Ok(Numbers { run, deployments })
    }

    /// Takes what an operation needs that keeps nobody from it while people are asked. Returns the number of the next run.
    async fn hold_ground(&self, tx: &Tx, new: &NewOperation, op: &str) -> Result<i64> {
        let ground = Ground::of(new.plan.kind, &new.plan.target);
        let run = match &ground {
            // As it was seen, for what mends it; it may be held by others meanwhile when people have agreed.
            Ground::Project(project) if !new.holds() && new.plan.kind == Kind::RepairProject => {
                hold_project(tx, project, op, None, &new.seen, false).await?
            }
            _ if !new.holds() => 0,
            _ => hold(tx, &ground, op, &new.seen, self.now()).await?,
        };
        if new.plan.kind == Kind::RepairProject && new.plan.steps().next().is_some() {
            // People are asked once.
            let waits = OperationState::ALL.iter().copied().filter(|state| !state.rests());
            let mends = operation::Column::Kind.eq(Kind::RepairProject).and(State.is_in(waits));
            refuse_others(tx, &new.plan.project(), op, mends).await?;
        }
        Ok(run)
    }

    async fn insert_project(&self, tx: &Tx, new: &NewOperation, op: &str, runs: i64) -> Result<()> {
        let plan = &new.plan;
        let Some(wanted) = &new.makes.project else {
            return Err(Error::Corrupt("a project is to be made, but not said how".to_owned()));
        };
        let row = project::ActiveModel {
            uid: Set(self.ids.uuid()),
            organization: Set(plan.organization.clone()),
            name: Set(plan.target.clone()),
            display_name: Set(wanted.display_name.clone()),
            owner: Set(wanted.owner.clone()),
            template_version: Set(plan.template_version.clone()),
            parameters: Set(plan.parameters.clone()),
            labels: Set(Typed(wanted.labels.clone())),
            state: Set(ProjectState::Creating),
            operation: Set(op.to_owned()),
            creator: Set(plan.requester.clone()),
            create_time: Set(self.now()),
            update_time: Set(self.now()),
            revision: Set(1),
            run_seq: Set(runs),
            touched: Set(0),
        };
        let done = project::Entity::insert(row).exec_without_returning(tx).await;
        unique(done, "Project", &plan.target)
    }

    async fn insert_environment(
        &self,
        tx: &Tx,
        new: &NewOperation,
        wanted: &NewEnvironment,
        op: &str,
    ) -> Result<()> {
        let waits = new.admission == Admission::AskPeople;
        let row = environment::ActiveModel {
            uid: Set(self.ids.uuid()),
            organization: Set(new.plan.organization.clone()),
            project: Set(names::project_of(&wanted.name)),
            name: Set(wanted.name.clone()),
            display_name: Set(wanted.display_name.clone()),
            class: Set(wanted.class.clone()),
            template_version: Set(new.plan.template_version.clone()),
            parameters: Set(wanted.parameters.clone()),
            ttl_seconds: Set(wanted.ttl_seconds),
            expire_time: Set(wanted.expire_time),
            state: Set(if waits { EnvironmentState::AwaitingApproval } else { EnvironmentState::Creating }),
            operation: Set(op.to_owned()),
            creator: Set(new.plan.requester.clone()),
            create_time: Set(self.now()),
            update_time: Set(self.now()),
            revision: Set(1),
            deployment_seq: Set(0),
        };
        let done = environment::Entity::insert(row).exec_without_returning(tx).await;
        unique(done, "Environment", &wanted.name)
    }

    /// Every environment of a project belongs to the operation that removes it.
    async fn hold_environments(&self, tx: &Tx, project: &str, new: &NewOperation, op: &str) -> Result<()> {
        // Exactly those that policy was asked about: none came, went, changed or is worked on since. Those that end
        // now are waited for.
        let found = environment::Entity::find()
            .filter(environment::Column::Project.eq(project))
            .order_by_asc(environment::Column::Name)
            .lock_exclusive()
            .all(tx)
            .await?;
        if let Some(held) = found.iter().find(|row| !row.operation.is_empty()) {
            return Err(Error::Busy { name: held.name.clone(), operation: held.operation.clone() });
        }
        let names: BTreeSet<&str> = found.iter().map(|row| row.name.as_str()).collect();
        let as_seen = |row: &environment::Model| new.seen.get(&row.name) == Some(&(row.uid, row.revision));
        if names != new.plan.removes() || !found.iter().all(as_seen) {
            return Err(Error::Stale { name: project.to_owned() });
        }
        let (state, _) = EnvironmentState::transition(EnvironmentEvent::Delete);
        environment::Entity::update_many()
            .col_expr(environment::Column::Operation, Expr::value(op))
            .col_expr(environment::Column::State, Expr::value(state))
            .col_expr(environment::Column::UpdateTime, Expr::value(self.now()))
            .col_expr(environment::Column::Revision, Expr::col(environment::Column::Revision).add(1))
            .filter(environment::Column::Project.eq(project))
            .exec(tx)
            .await?;
        Ok(())
    }
}

/// What an operation takes before it goes on, besides what is its own from the beginning.
enum Ground {
    /// A place in a project, beside others.
    Beside(String),
    /// A project as a whole.
    Project(String),
    /// An environment.
    Environment(String),
    /// Nothing that anybody has.
    Nothing,
}

impl Ground {
    fn of(kind: Kind, target: &str) -> Self {
        let project = names::project_of(target);
        match kind {
            Kind::RepairProject => Self::Project(project),
            // It is in no project: that nobody declares it meanwhile is held by the name of its resource.
            Kind::DeleteOrphan if names::made_for(target) == target => Self::Nothing,
            // That name is another thing's. Its driver is called for both under it, and of two operations on one name it
            // takes the later for the only one: nothing else may work on what the other thing is in.
            Kind::DeleteOrphan => match names::environment_of(target) {
                environment if environment.is_empty() => Self::Project(project),
                environment => Self::Environment(environment),
            },
            _ => Self::Beside(project),
        }
    }
}

/// Other operations of a project, in these states.
fn others(project: &str, op: &str, which: impl IntoCondition) -> Select<operation::Entity> {
    operation::Entity::find()
        .filter(operation::Column::Project.eq(project))
        .filter(operation::Column::Name.ne(op))
        .filter(which)
}

/// Refuses to take a project while others are at it. For as long as the project is held, no more come.
async fn refuse_others(
    connection: &impl ConnectionTrait,
    project: &str,
    op: &str,
    which: impl IntoCondition,
) -> Result<()> {
    match others(project, op, which).one(connection).await? {
        Some(other) => Err(Error::Busy { name: project.to_owned(), operation: other.name }),
        None => Ok(()),
    }
}

/// Takes what an operation did not hold while it waited, right before it goes on. Whoever goes on in a project does so while
/// nobody else has it as a whole.
pub(crate) async fn take(this: &Db, tx: &Tx, aggregate: &mut Aggregate) -> Result<()> {
    let (op, begins) = (&aggregate.op, !aggregate.holds());
    let seen = if begins { planned_with(op)? } else { Seen::new() };
    hold(tx, &Ground::of(op.kind, &op.target), &op.name, &seen, this.now()).await?;
    if op.kind == Kind::DeleteOrphan {
        still_left(tx, &op.target).await?;
    }
    for step in aggregate.steps.iter().filter(|_| begins) {
        if let Some(event) = ResourceEvent::of(step.action) {
            move_resource(tx, &step.resource, event).await?;
        }
    }
    aggregate.outrun();
    Ok(())
}

/// Holds a ground, unless somebody else does or is at it. Returns the number of the next run.
async fn hold(tx: &Tx, ground: &Ground, op: &str, seen: &Seen, now: OffsetDateTime) -> Result<i64> {
    match ground {
        Ground::Nothing => Ok(0),
        Ground::Beside(project) => hold_project(tx, project, op, None, seen, false).await,
        Ground::Project(project) => {
            let run = hold_project(tx, project, op, Some(ProjectEvent::Update), seen, false).await?;
            in_the_way(tx, ground, op).await?.map_or(Ok(run), Err)
        }
        Ground::Environment(environment) => {
            let run = hold_project(tx, &names::project_of(environment), op, None, seen, false).await?;
            hold_environment(tx, environment, op, EnvironmentEvent::Update, seen, now).await?;
            Ok(run)
        }
    }
}

/// Whether what was to be removed is an orphan still, and what had its name when that was planned has it still: else the
/// name could be taken anew while the driver is called under it.
async fn still_left(tx: &Tx, target: &str) -> Result<()> {
    let named = async |name: &str| {
        let row = resource::Entity::find().filter(resource::Column::Name.eq(name)).one(tx).await?;
        row.ok_or_else(|| Error::Stale { name: name.to_owned() })
    };
    let orphan = named(target).await?;
    let known = recorded_as(tx, &orphan.organization, &orphan.driver, &orphan.identity).await?;
    if let Some(known) = known.filter(|known| !known.project.is_empty()) {
        return Err(Error::Declared { identity: orphan.identity, resource: known.name });
    }
    named(names::made_for(target)).await.map(drop)
}

/// The project as a repair was planned with it: nothing else is so that could change while it waits.
fn planned_with(op: &operation::Model) -> Result<Seen> {
    if op.kind != Kind::RepairProject {
        return Ok(Seen::new());
    }
    let setting = |key: &str| op.settings.get(key);
    let uid = setting("uid").and_then(Value::as_str).and_then(|uid| Uuid::parse_str(uid).ok());
    match (uid, setting("revision").and_then(Value::as_i64)) {
        (Some(uid), Some(revision)) => Ok([(op.project.clone(), (uid, revision))].into()),
        _ => Err(Error::Corrupt(format!(
            "operation `{}` does not say with which project it was planned",
            op.name
        ))),
    }
}

impl Db {
    /// Whether something goes on that an operation which people have agreed to has to wait for.
    pub async fn in_the_way_unscoped(&self, op: &Operation) -> Result<Option<Error>> {
        in_the_way(self.store.read(), &Ground::of(op.kind, &op.target), &op.name).await
    }

    /// Refuses a removal of a project in which an operation is not done.
    pub async fn refuse_not_done(&self, permit: &Permit, project: &str) -> Result<()> {
        let permitted = operation::Column::Organization.eq(permit.organization());
        let not_done = State.is_not_in(OperationState::DONE).and(permitted);
        refuse_others(self.store.read(), project, "", not_done).await
    }
}

/// That another operation has a ground, or goes on in what is to be taken as a whole.
async fn in_the_way(connection: &impl ConnectionTrait, ground: &Ground, op: &str) -> Result<Option<Error>> {
    let project = match ground {
        Ground::Nothing => return Ok(None),
        Ground::Beside(project) | Ground::Project(project) => project.clone(),
        Ground::Environment(environment) => names::project_of(environment),
    };
    let row = project::Entity::find().filter(project::Column::Name.eq(&project)).one(connection).await?;
    let mut found: Vec<_> = row.into_iter().map(|row| (row.name, row.operation)).collect();
    if let Ground::Environment(name) = ground {
        let row = environment::Entity::find().filter(environment::Column::Name.eq(name));
        found.extend(row.one(connection).await?.map(|row| (row.name, row.operation)));
    }
    if let Ground::Project(_) = ground {
        let going_on = others(&project, op, State.is_in(OperationState::GOING_ON)).one(connection).await?;
        found.extend(going_on.map(|other| (project, other.name)));
    }
    let other = found.into_iter().find(|(_, holder)| !holder.is_empty() && holder != op);
    Ok(other.map(|(name, operation)| Error::Busy { name, operation }))
}

/// Why a row was not taken: it is gone, another operation has it, or it is not what was planned with. Where none of this is
/// so, whoever had it has let go since, and all of this runs again.
fn untaken(kind: &'static str, name: &str, row: Option<(String, Uuid, i64)>, op: &str, seen: &Seen) -> Error {
    let name = name.to_owned();
    match row {
        None => Error::NotFound { kind, name },
        Some((operation, ..)) if !operation.is_empty() && operation != op => Error::Busy { name, operation },
        Some((_, uid, revision)) if seen.get(&name).is_some_and(|seen| *seen != (uid, revision)) => {
            Error::Stale { name }
        }
        Some(_) => StoreError::Concurrent.into(),
    }
}

/// Holds the project's row until commit, unless another operation has it; with an event the project belongs to this one
/// from then on. Returns the number of the next run.
async fn hold_project(
    tx: &Tx,
    name: &str,
    op: &str,
    held: Option<ProjectEvent>,
    seen: &Seen,
    runs: bool,
) -> Result<i64> {
    let mut update = project::Entity::update_many()
        .col_expr(project::Column::Touched, Expr::col(project::Column::Touched).add(1))
        .col_expr(project::Column::RunSeq, Expr::col(project::Column::RunSeq).add(i64::from(runs)))
        .filter(project::Column::Name.eq(name))
        .filter(project::Column::Operation.is_in(["", op]));
    if let Some((uid, revision)) = seen.get(name) {
        update = update.filter(project::Column::Uid.eq(*uid)).filter(project::Column::Revision.eq(*revision));
    }
    if let Some(event) = held {
        let (state, _) = ProjectState::transition(event);
        update = update
            .col_expr(project::Column::Operation, Expr::value(op))
            .col_expr(project::Column::State, Expr::value(state))
            .col_expr(project::Column::Revision, Expr::col(project::Column::Revision).add(1));
    }
    let rows = update.exec_with_returning(tx).await?;
    match rows.first() {
        Some(row) => Ok(row.run_seq),
        None => {
            let row = project::Entity::find().filter(project::Column::Name.eq(name)).one(tx).await?;
            let row = row.map(|row| (row.operation, row.uid, row.revision));
            Err(untaken("Project", name, row, op, seen))
        }
    }
}

/// The environment belongs to the operation from then on.
async fn hold_environment(
    tx: &Tx,
    name: &str,
    op: &str,
    event: EnvironmentEvent,
    seen: &Seen,
    now: OffsetDateTime,
) -> Result<()> {
    let (state, _) = EnvironmentState::transition(event);
    let mut update = environment::Entity::update_many()
        .col_expr(environment::Column::Operation, Expr::value(op))
        .col_expr(environment::Column::State, Expr::value(state))
        .col_expr(environment::Column::UpdateTime, Expr::value(now))
        .col_expr(environment::Column::Revision, Expr::col(environment::Column::Revision).add(1))
        .filter(environment::Column::Name.eq(name))
        .filter(environment::Column::Operation.is_in(["", op]));
    if let Some((uid, revision)) = seen.get(name) {
        update = update
            .filter(environment::Column::Uid.eq(*uid))
            .filter(environment::Column::Revision.eq(*revision));
    }
    let done = update.exec(tx).await?;
    if done.rows_affected == 1 {
        return Ok(());
    }
    let row = environment::Entity::find().filter(environment::Column::Name.eq(name)).one(tx).await?;
    let row = row.map(|row| (row.operation, row.uid, row.revision));
    Err(untaken("Environment", name, row, op, seen))
}

/// How many deployments a plan makes in each environment.
fn deployments_of(plan: &Plan) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for change in plan.steps().filter(|change| change.spec.takes_artifact()) {
        *counts.entry(change.spec.environment.clone()).or_default() += 1;
    }
    counts
}

/// That something is there already is an error that names it.
pub(crate) fn unique<T>(
    done: std::result::Result<T, sea_orm::DbErr>,
    kind: &'static str,
    name: &str,
) -> Result<()> {
    match done.map_err(pavior_store::StoreError::from) {
        Ok(_) => Ok(()),
        Err(error) if error.is_unique() => Err(Error::AlreadyExists { kind, name: name.to_owned() }),
        Err(error) => Err(error.into()),
    }
}
