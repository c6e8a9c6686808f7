//! The transaction that accepts an operation: the plan, the operation with its steps, and what is seen of its target
//! from then on. Everything or nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use pavior_auth::Permit;
use pavior_core::principal::Principal;
use pavior_store::idempotency::{self, Kept};
use pavior_store::{Recorded, Tx};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, ExprTrait, IntoActiveModel, QueryFilter,
    QuerySelect,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::entity::{deployment, environment, operation, plan, project, resource, run, step};
use super::journal::Aggregate;
use super::rows::deployment_row;
use super::{Db, audit, db, finish};
use crate::domain::names;
use crate::domain::plan::{Action, Artifact, Kind, Plan};
use crate::error::{Error, Result};

/// Whether it may begin at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Run,
    /// People have to agree first.
    AskPeople,
}

/// A project to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewProject {
    /// The name to show.
    pub display_name: String,
    /// Its owner.
    pub owner: String,
    /// Its labels.
    pub labels: Value,
}

/// An environment to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEnvironment {
    /// Its resource name.
    pub name: String,
    /// The name to show.
    pub display_name: String,
    /// Its class.
    pub class: String,
    /// Parameters that differ from the project's.
    pub parameters: Value,
    /// How long it lives.
    pub ttl_seconds: Option<i64>,
}

/// Whose an operation is: what policy asks about it, also when its target is gone or was never made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ownership {
    /// The group that owns the project.
    pub owner: String,
    /// The class of the environment; empty outside environments.
    pub environment_class: String,
    /// The project's labels.
    pub labels: Value,
}

/// Everything that is accepted together.
#[derive(Debug, Clone)]
pub struct NewOperation {
    /// The operation's id.
    pub id: Uuid,
    /// What it carries out.
    pub plan: Plan,
    /// Who asked.
    pub principal: Principal,
    /// The caller's request.
    pub key: Option<(idempotency::Key, Vec<u8>)>,
    /// What policy was told of the target, kept with the answer.
    pub facts: Vec<u8>,
    /// Whether it may begin at once.
    pub admission: Admission,
    /// How long it may take.
    pub deadline_micros: i64,
    /// How long undoing it may take.
    pub undo_micros: i64,
    /// Whose it is, for as long as its row is kept.
    pub ownership: Ownership,
    /// The project to be made, if one is.
    pub project: Option<NewProject>,
    /// The environments to be made.
    pub environments: Vec<NewEnvironment>,
    /// The revision of the target that was planned with.
    pub revision: Option<i64>,
    /// The id of the deployment; made when empty.
    pub deployment_id: String,
    /// The version of the engine.
    pub engine_version: &'static str,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// A new operation.
    New(Uuid),
    /// The same request was answered before, with this operation.
    Before(Uuid),
}

struct Numbers {
    run: i64,
    deployments: Vec<(String, i64)>,
}

impl Db {
    /// The operation that answered a request before.
    pub async fn replayed(&self, key: &idempotency::Key, hash: &[u8]) -> Result<Option<Uuid>> {
        let answer = idempotency::check(self.store.read(), key, hash).await?;
        Ok(answer.and_then(|bytes| Uuid::from_slice(&bytes).ok()))
    }

    /// The answer that a request gets from now on, with what policy was told of the target.
    pub(crate) fn kept(
        &self,
        key: Option<&(idempotency::Key, Vec<u8>)>,
        id: Uuid,
        facts: &[u8],
    ) -> Option<Kept> {
        let (key, hash) = key?.clone();
        Some(Kept { key, hash, response: id.as_bytes().to_vec(), facts: facts.to_vec(), time: self.now() })
    }

    /// What policy was told of the target when a request was first answered.
    pub async fn remembered_facts(&self, key: &idempotency::Key) -> Result<Option<Vec<u8>>> {
        let facts = idempotency::facts(self.store.read(), key, self.now()).await?;
        Ok(facts.filter(|facts| !facts.is_empty()))
    }

    /// Accepts an operation.
    pub async fn accept(&self, new: NewOperation) -> Result<Started> {
        let new = Arc::new(new);
        // Seen here only: the transaction runs in a task of its own.
        let (this, call) = (self.clone(), pavior_auth::current());
        self.store
            .change(&self.outbox, move |tx| {
                let (this, new, call) = (this.clone(), new.clone(), call.clone());
                Box::pin(async move { this.accept_in(tx, &new, call.as_ref()).await })
            })
            .await
    }

    async fn accept_in(
        &self,
        tx: &Tx,
        new: &NewOperation,
        call: Option<&Permit>,
    ) -> Result<Recorded<Started>> {
        if let Some((key, hash)) = &new.key
            && let Some(first) = idempotency::check(tx, key, hash).await?
        {
            let id = Uuid::from_slice(&first).map_err(|_| Error::Corrupt("the kept answer".to_owned()))?;
            return Ok(Recorded::unchanged(Started::Before(id)));
        }
        let clock = self.time(tx).await?;
        let op = self.operation_row(new, clock);
        let numbers = self.take_target(tx, new, &op.name).await?;
        let fences = self.resources(tx, new).await?;
        let mut steps = self.step_rows(new, &op, &fences, clock);
        self.runs_and_deployments(tx, new, &op, &mut steps, &numbers).await?;
        self.plan_row(tx, &new.plan).await?;
        let mut aggregate = Aggregate::new(op, steps, self.now(), clock)?;
        if new.admission == Admission::Run {
            aggregate.settle()?;
        }
        let accepted = audit::accepted_event(self, call, &aggregate.op, &new.plan);
        aggregate.insert(tx).await?;
        let mut events = vec![accepted];
        if aggregate.state.ended() {
            events.extend(finish::finish(self, tx, &mut aggregate).await?);
        }
        let kept = self.kept(new.key.as_ref(), new.id, &new.facts);
        Ok(Recorded::all(Started::New(new.id), events).answering(kept))
    }

    async fn plan_row(&self, tx: &Tx, plan: &Plan) -> Result<()> {
        let row = plan::ActiveModel {
            id: Set(plan.id),
            organization: Set(plan.organization.clone()),
            name: Set(names::plan(&plan.organization, &plan.id)),
            action: Set(plan.action.clone()),
            target: Set(plan.target.clone()),
            requester: Set(plan.requester.clone()),
            digest: Set(plan.digest.clone()),
            document: Set(plan.to_json()),
            create_time: Set(plan.create_time),
        };
        plan::Entity::insert(row).exec_without_returning(tx).await.map_err(db)?;
        Ok(())
    }

    /// Makes or takes what the operation works on, so that no other operation does.
    async fn take_target(&self, tx: &Tx, new: &NewOperation, op: &str) -> Result<Numbers> {
        let project = names::project_of(&new.plan.target);
        let runs = new.plan.changes.iter().any(|change| change.action == Action::Run);
        let run = match new.plan.kind {
            Kind::CreateProject => {
                self.insert_project(tx, new, op, i64::from(runs)).await?;
                1
            }
            Kind::CreateEnvironment | Kind::Run => take_project(tx, &project, None, runs).await?,
            Kind::DestroyProject => {
                take_project(tx, &project, Some((op, new.revision)), false).await?;
                self.take_environments(tx, &project, &new.plan, op).await?;
                0
            }
            Kind::UpdateEnvironment | Kind::Deploy | Kind::DestroyEnvironment => {
                take_environment(tx, new, op, self.now()).await?;
                if runs { take_project(tx, &project, None, true).await? } else { 0 }
            }
        };
        for environment in &new.environments {
            self.insert_environment(tx, new, environment, op).await?;
        }
        let mut deployments = Vec::new();
        for environment in deployed_environments(&new.plan) {
            let rows = environment::Entity::update_many()
                .col_expr(
                    environment::Column::DeploymentSeq,
                    Expr::col(environment::Column::DeploymentSeq).add(1),
                )
                .filter(environment::Column::Name.eq(environment.clone()))
                .exec_with_returning(tx)
                .await
                .map_err(db)?;
            let seq = rows.first().map(|row| row.deployment_seq).unwrap_or(1);
            deployments.push((environment, seq));
        }
        Ok(Numbers { run, deployments })
    }

    async fn insert_project(&self, tx: &Tx, new: &NewOperation, op: &str, runs: i64) -> Result<()> {
        let plan = &new.plan;
        let Some(wanted) = &new.project else {
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
            labels: Set(wanted.labels.clone()),
            state: Set("CREATING".into()),
            operation: Set(op.to_owned()),
            creator: Set(plan.requester.clone()),
            create_time: Set(self.now()),
            update_time: Set(self.now()),
            revision: Set(1),
            run_seq: Set(runs),
            touched: Set(0),
        };
        let done = project::Entity::insert(row).exec_without_returning(tx).await;
        unique(done, "project", &plan.target)
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
            expire_time: Set(None),
            state: Set(if waits { "AWAITING_APPROVAL" } else { "CREATING" }.into()),
            operation: Set(op.to_owned()),
            url: Set(String::new()),
            deployment: Set(String::new()),
            creator: Set(new.plan.requester.clone()),
            create_time: Set(self.now()),
            update_time: Set(self.now()),
            revision: Set(1),
            deployment_seq: Set(0),
        };
        let done = environment::Entity::insert(row).exec_without_returning(tx).await;
        unique(done, "environment", &wanted.name)
    }

    async fn take_environments(&self, tx: &Tx, project: &str, plan: &Plan, op: &str) -> Result<()> {
        let busy = operation::Entity::find()
            .filter(operation::Column::Project.eq(project))
            .filter(operation::Column::State.is_not_in(["SUCCEEDED", "COMPENSATED", "DENIED", "STUCK"]))
            .one(tx)
            .await
            .map_err(db)?;
        if let Some(other) = busy {
            return Err(Error::Busy { name: project.to_owned(), operation: other.name });
        }
        // Exactly those that policy was asked about: none came or went since.
        let found: Vec<String> = environment::Entity::find()
            .select_only()
            .column(environment::Column::Name)
            .filter(environment::Column::Project.eq(project))
            .into_tuple()
            .all(tx)
            .await
            .map_err(db)?;
        if found.iter().map(String::as_str).collect::<BTreeSet<_>>() != plan.removes() {
            return Err(Error::Busy { name: project.to_owned(), operation: String::new() });
        }
        environment::Entity::update_many()
            .col_expr(environment::Column::Operation, Expr::value(op))
            .col_expr(environment::Column::State, Expr::value("DELETING"))
            .col_expr(environment::Column::UpdateTime, Expr::value(self.now()))
            .col_expr(environment::Column::Revision, Expr::col(environment::Column::Revision).add(1))
            .filter(environment::Column::Project.eq(project))
            .exec(tx)
            .await
            .map_err(db)?;
        Ok(())
    }

    /// Rows of the resources that change. Returns the lowest fence and the former row of each.
    async fn resources(&self, tx: &Tx, new: &NewOperation) -> Result<Vec<(String, Option<resource::Model>)>> {
        let names: Vec<String> = new.plan.steps().map(|change| change.resource.clone()).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let found =
            resource::Entity::find().filter(resource::Column::Name.is_in(names)).all(tx).await.map_err(db)?;
        let mut former = Vec::new();
        let mut made = Vec::new();
        for change in new.plan.steps() {
            let row = found.iter().find(|row| row.name == change.resource).cloned();
            match change.action {
                Action::Create if row.is_some() => {
                    return Err(Error::AlreadyExists { kind: "resource", name: change.resource.clone() });
                }
                Action::Create => made.push(self.resource_row(new, change)),
                Action::Update | Action::Replace | Action::Delete => {
                    let state = if change.action == Action::Delete { "DELETING" } else { "UPDATING" };
                    let set = resource::ActiveModel { state: Set(state.into()), ..Default::default() };
                    super::effects::set_resource(tx, &change.resource, set).await?;
                }
                Action::Run | Action::Noop => {}
            }
            former.push((change.step.clone(), row));
        }
        for chunk in made.chunks(super::ROWS_AT_ONCE) {
            let done = resource::Entity::insert_many(chunk.to_vec()).exec_without_returning(tx).await;
            unique(done, "resource", &new.plan.target)?;
        }
        Ok(former)
    }

    async fn runs_and_deployments(
        &self,
        tx: &Tx,
        new: &NewOperation,
        op: &operation::Model,
        steps: &mut [step::Model],
        numbers: &Numbers,
    ) -> Result<()> {
        for (step, change) in steps.iter_mut().zip(new.plan.steps()) {
            if change.action == Action::Run {
                let pipeline = format!("{}/pipelines/{}", op.project, names::last(&change.resource));
                step.subject = format!("{pipeline}/runs/run-{}", numbers.run);
                let row = run::Model {
                    uid: self.ids.uuid(),
                    organization: op.organization.clone(),
                    project: op.project.clone(),
                    pipeline,
                    name: step.subject.clone(),
                    state: "QUEUED".to_owned(),
                    commit_id: String::new(),
                    steps: json!([]),
                    artifacts: json!([]),
                    operation: op.name.clone(),
                    creator: op.requester.clone(),
                    create_time: self.now(),
                    end_time: None,
                };
                row.into_active_model().insert(tx).await.map_err(db)?;
            }
            let seq = numbers.deployments.iter().find(|(name, _)| *name == change.spec.environment);
            if let (false, Some((environment, seq))) = (change.spec.artifact == Artifact::None, seq) {
                let id = match new.deployment_id.as_str() {
                    "" => format!("deployment-{seq}"),
                    id => id.to_owned(),
                };
                step.subject = format!("{environment}/deployments/{id}");
                let row = deployment_row(self, op, change, &step.subject);
                let done =
                    deployment::Entity::insert(row.into_active_model()).exec_without_returning(tx).await;
                unique(done, "deployment", &step.subject)?;
            }
        }
        Ok(())
    }
}

fn deployed_environments(plan: &Plan) -> Vec<String> {
    let mut names: Vec<String> = plan
        .steps()
        .filter(|change| change.spec.artifact != Artifact::None && !change.spec.environment.is_empty())
        .map(|change| change.spec.environment.clone())
        .collect();
    names.dedup();
    names
}

fn unique<T>(done: std::result::Result<T, sea_orm::DbErr>, kind: &'static str, name: &str) -> Result<()> {
    match done.map_err(pavior_store::StoreError::from) {
        Ok(_) => Ok(()),
        Err(error) if error.is_unique() => Err(Error::AlreadyExists { kind, name: name.to_owned() }),
        Err(error) => Err(error.into()),
    }
}

/// Holds the project's row until commit; with `op` the project belongs to the operation from then on. Returns the
/// number of the next run.
async fn take_project(tx: &Tx, name: &str, op: Option<(&str, Option<i64>)>, runs: bool) -> Result<i64> {
    let mut update = project::Entity::update_many()
        .col_expr(project::Column::Touched, Expr::col(project::Column::Touched).add(1))
        .col_expr(project::Column::RunSeq, Expr::col(project::Column::RunSeq).add(i64::from(runs)))
        .filter(project::Column::Name.eq(name))
        .filter(project::Column::Operation.eq(""));
    if let Some((op, revision)) = op {
        update = update
            .col_expr(project::Column::Operation, Expr::value(op))
            .col_expr(project::Column::State, Expr::value("DELETING"))
            .col_expr(project::Column::Revision, Expr::col(project::Column::Revision).add(1));
        if let Some(revision) = revision {
            update = update.filter(project::Column::Revision.eq(revision));
        }
    }
    let rows = update.exec_with_returning(tx).await.map_err(db)?;
    match rows.first() {
        Some(row) => Ok(row.run_seq),
        None => {
            let row =
                project::Entity::find().filter(project::Column::Name.eq(name)).one(tx).await.map_err(db)?;
            let row = row.ok_or_else(|| Error::NotFound { kind: "project", name: name.to_owned() })?;
            Err(Error::Busy { name: name.to_owned(), operation: row.operation })
        }
    }
}

async fn take_environment(tx: &Tx, new: &NewOperation, op: &str, now: OffsetDateTime) -> Result<()> {
    let name = &new.plan.target;
    let state = match (new.plan.kind, new.admission) {
        (_, Admission::AskPeople) => "AWAITING_APPROVAL",
        (kind, Admission::Run) => finish::working_state(kind),
    };
    let mut update = environment::Entity::update_many()
        .col_expr(environment::Column::Operation, Expr::value(op))
        .col_expr(environment::Column::State, Expr::value(state))
        .col_expr(environment::Column::UpdateTime, Expr::value(now))
        .col_expr(environment::Column::Revision, Expr::col(environment::Column::Revision).add(1))
        .filter(environment::Column::Name.eq(name.clone()))
        .filter(environment::Column::Operation.eq(""));
    if let Some(revision) = new.revision {
        update = update.filter(environment::Column::Revision.eq(revision));
    }
    let done = update.exec(tx).await.map_err(db)?;
    if done.rows_affected == 1 {
        return Ok(());
    }
    let row = environment::Entity::find()
        .filter(environment::Column::Name.eq(name.clone()))
        .one(tx)
        .await
        .map_err(db)?
        .ok_or_else(|| Error::NotFound { kind: "environment", name: name.clone() })?;
    Err(Error::Busy { name: name.clone(), operation: row.operation })
}
