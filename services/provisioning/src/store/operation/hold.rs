//! Holding what an operation works on, so that no other operation does: checked and written under the same lock.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;

use crate::domain::environment::{EnvironmentEvent, EnvironmentState};
use crate::domain::names;
use crate::domain::operation::OperationState;
use crate::domain::plan::{Action, Kind, Plan};
use crate::domain::project::{ProjectEvent, ProjectState};
use crate::domain::state::Lifecycle as _;
use crate::store::entity::{environment, operation, project};
use crate::store::operation::accept::{Admission, NewEnvironment, NewOperation, Seen};
use crate::store::operation::finish;
use crate::store::prelude::*;

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
            Kind::CreateEnvironment | Kind::Run => hold_project(tx, &project, None, &new.seen, runs).await?,
            Kind::DestroyProject => {
                let held = Some((op, ProjectEvent::Delete));
                hold_project(tx, &project, held, &new.seen, false).await?;
                self.hold_environments(tx, &project, new, op).await?;
                0
            }
            // Nobody else mends or removes what the project has itself, and nobody plans with it, until this is over.
            Kind::RepairProject => {
                hold_project(tx, &project, Some((op, ProjectEvent::Update)), &new.seen, false).await?
            }
            // It is in no project. That nobody declares it meanwhile is held by the name of its resource.
            Kind::DeleteOrphan => 0,
            Kind::UpdateEnvironment | Kind::Deploy | Kind::DestroyEnvironment => {
                let run = hold_project(tx, &project, None, &new.seen, runs).await?;
                hold_environment(tx, new, op, self.now()).await?;
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
    pub(crate) async fn hold_environments(
        &self,
        tx: &Tx,
        project: &str,
        new: &NewOperation,
        op: &str,
    ) -> Result<()> {
        let goes_on = OperationState::ALL.iter().copied().filter(|state| !state.rests());
        let busy = operation::Entity::find()
            .filter(operation::Column::Project.eq(project))
            .filter(operation::Column::State.is_in(goes_on))
            .one(tx)
            .await?;
        if let Some(other) = busy {
            return Err(Error::Busy { name: project.to_owned(), operation: other.name });
        }
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
            return Err(Error::Busy { name: project.to_owned(), operation: String::new() });
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

/// Holds the project's row until commit; with `op` the project belongs to the operation from then on. Returns the
/// number of the next run.
pub(crate) async fn hold_project(
    tx: &Tx,
    name: &str,
    held: Option<(&str, ProjectEvent)>,
    seen: &Seen,
    runs: bool,
) -> Result<i64> {
    let mut update = project::Entity::update_many()
        .col_expr(project::Column::Touched, Expr::col(project::Column::Touched).add(1))
        .col_expr(project::Column::RunSeq, Expr::col(project::Column::RunSeq).add(i64::from(runs)))
        .filter(project::Column::Name.eq(name))
        .filter(project::Column::Operation.eq(""));
    if let Some((uid, revision)) = seen.get(name) {
        update = update.filter(project::Column::Uid.eq(*uid)).filter(project::Column::Revision.eq(*revision));
    }
    if let Some((op, event)) = held {
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
            let row = row.ok_or_else(|| Error::NotFound { kind: "Project", name: name.to_owned() })?;
            Err(Error::Busy { name: name.to_owned(), operation: row.operation })
        }
    }
}

/// The environment belongs to the operation from then on.
pub(crate) async fn hold_environment(
    tx: &Tx,
    new: &NewOperation,
    op: &str,
    now: OffsetDateTime,
) -> Result<()> {
    let name = &new.plan.target;
    let event = match new.admission {
        Admission::AskPeople => EnvironmentEvent::AskPeople,
        Admission::Run => finish::works_on(new.plan.kind).1,
    };
    let (state, _) = EnvironmentState::transition(event);
    let mut update = environment::Entity::update_many()
        .col_expr(environment::Column::Operation, Expr::value(op))
        .col_expr(environment::Column::State, Expr::value(state))
        .col_expr(environment::Column::UpdateTime, Expr::value(now))
        .col_expr(environment::Column::Revision, Expr::col(environment::Column::Revision).add(1))
        .filter(environment::Column::Name.eq(name.clone()))
        .filter(environment::Column::Operation.eq(""));
    if let Some((uid, revision)) = new.seen.get(name) {
        update = update
            .filter(environment::Column::Uid.eq(*uid))
            .filter(environment::Column::Revision.eq(*revision));
    }
    let done = update.exec(tx).await?;
    if done.rows_affected == 1 {
        return Ok(());
    }
    let row = environment::Entity::find()
        .filter(environment::Column::Name.eq(name.clone()))
        .one(tx)
        .await?
        .ok_or_else(|| Error::NotFound { kind: "Environment", name: name.clone() })?;
    Err(Error::Busy { name: name.clone(), operation: row.operation })
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
