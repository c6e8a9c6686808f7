//! The transaction that accepts an operation: the plan, the operation with its steps, and what is seen of its target
//! from then on. Everything or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use pavior_auth::Permit;
use pavior_core::principal::Principal;
use pavior_store::idempotency::{self, Kept};
use pavior_store::{Recorded, Tx, TxFuture};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, ExprTrait, IntoActiveModel, QueryFilter,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::entity::{deployment, environment, operation, project, resource, run, step};
use super::journal::Aggregate;
use super::rows::deployment_row;
use super::take::{take_environment, take_project};
use super::{Db, audit, db, finish};
use crate::domain::names;
use crate::domain::plan::{Action, Kind, Plan};
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
    /// When it is taken down, where that was said.
    pub expire_time: Option<OffsetDateTime>,
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

/// Rows as they were when a plan was made, by resource name: those that are gone, were made anew or have changed since
/// make it another plan.
pub type Seen = BTreeMap<String, (Uuid, i64)>;

/// Everything that is accepted together.
#[derive(Debug, Clone)]
pub struct NewOperation {
    /// The operation's id.
    pub id: Uuid,
    /// What it carries out.
    pub plan: Plan,
    /// Whether the plan was kept before.
    pub of_kept_plan: bool,
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
    /// The project and the environments that were planned with, by name, as they were seen then.
    pub seen: Seen,
    /// The timer that it is begun for: one that is not due any more begins nothing.
    pub due: Option<Uuid>,
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
    /// The same request was answered before: there was nothing to do.
    Nothing,
}

/// The answer that is kept where there was nothing to do.
const NOTHING: &[u8] = &[];

/// An answer that was kept.
fn before(kept: &[u8]) -> Result<Started> {
    if kept == NOTHING {
        return Ok(Started::Nothing);
    }
    Uuid::from_slice(kept).map(Started::Before).map_err(|_| Error::Corrupt("the kept answer".to_owned()))
}

struct Numbers {
    run: i64,
    /// The number of the next deployment of each environment.
    deployments: BTreeMap<String, i64>,
}

impl Db {
    /// What answered a request before.
    pub async fn replayed(&self, key: &idempotency::Key, hash: &[u8]) -> Result<Option<Started>> {
        idempotency::check(self.store.read(), key, hash).await?.map(|first| before(&first)).transpose()
    }

    /// The answer that a request gets from now on, with what policy was told of the target.
    pub(crate) fn kept(
        &self,
        key: Option<&(idempotency::Key, Vec<u8>)>,
        id: Uuid,
        facts: &[u8],
    ) -> Option<Kept> {
        self.kept_bytes(key, id.as_bytes(), facts)
    }

    fn kept_bytes(
        &self,
        key: Option<&(idempotency::Key, Vec<u8>)>,
        response: &[u8],
        facts: &[u8],
    ) -> Option<Kept> {
        let (key, hash) = key?.clone();
        Some(Kept { key, hash, response: response.to_vec(), facts: facts.to_vec(), time: self.now() })
    }

    /// Keeps the answer that there is nothing to do, unless the request was answered before. Whoever repeats it must not
    /// do what was not done then.
    pub async fn nothing(&self, key: &(idempotency::Key, Vec<u8>)) -> Result<Started> {
        let (this, key) = (self.clone(), key.clone());
        self.store
            .change(&self.outbox, move |tx| {
                let (this, key) = (this.clone(), key.clone());
                Box::pin(async move {
                    if let Some(first) = idempotency::check(tx, &key.0, &key.1).await? {
                        return Ok(Recorded::unchanged(before(&first)?));
                    }
                    let kept = this.kept_bytes(Some(&key), NOTHING, &[]);
                    Ok(Recorded::unchanged(Started::Nothing).answering(kept))
                }) as TxFuture<'_, _, Error>
            })
            .await
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
            return Ok(Recorded::unchanged(before(&first)?));
        }
        let clock = self.time(tx).await?;
        let op = self.operation_row(new, clock);
        // Its row keeps others waiting who carry the same plan out.
        self.plan_row(tx, &new.plan, None, Some(op.name.clone())).await?;
        let mut numbers = self.take_target(tx, new, &op.name).await?;
        if let Some(timer) = new.due
            && !self.is_due(tx, timer).await?
        {
            return Err(Error::Busy { name: new.plan.target.clone(), operation: String::new() });
        }
        let fences = self.resources(tx, new).await?;
        let mut steps = self.step_rows(new, &op, &fences, clock);
        self.runs_and_deployments(tx, new, &op, &mut steps, &mut numbers).await?;
        let mut aggregate = Aggregate::new(op, steps, self.now(), clock)?;
        if new.admission == Admission::Run {
            aggregate.settle()?;
        }
        let accepted = audit::accepted_event(self, call, &aggregate.op, &new.plan);
        aggregate.insert(tx).await?;
        let mut events = vec![accepted];
        if let Some(call) = call.filter(|_| new.of_kept_plan) {
            let request_id = &aggregate.op.request_id;
            events.push(audit::plan_event(self, call, request_id, &new.plan, "a plan is carried out"));
        }
        if aggregate.state.rests() {
            events.extend(finish::finish(self, tx, &mut aggregate).await?);
        }
        let kept = self.kept(new.key.as_ref(), new.id, &new.facts);
        Ok(Recorded::all(Started::New(new.id), events).answering(kept))
    }

    /// Makes or takes what the operation works on, so that no other operation does.
    ///
    /// Whatever works in a project takes its row first. Until the commit nobody else is accepted in it, so that what is
    /// looked at afterwards is all there is: also where the database shows nothing that is not committed.
    async fn take_target(&self, tx: &Tx, new: &NewOperation, op: &str) -> Result<Numbers> {
        let project = names::project_of(&new.plan.target);
        let runs = new.plan.changes.iter().any(|change| change.action == Action::Run);
        let run = match new.plan.kind {
            Kind::CreateProject => {
                self.insert_project(tx, new, op, i64::from(runs)).await?;
                1
            }
            Kind::CreateEnvironment | Kind::Run => take_project(tx, &project, None, &new.seen, runs).await?,
            Kind::DestroyProject => {
                take_project(tx, &project, Some(op), &new.seen, false).await?;
                self.take_environments(tx, &project, new, op).await?;
                0
            }
            Kind::UpdateEnvironment | Kind::Deploy | Kind::DestroyEnvironment => {
                let run = take_project(tx, &project, None, &new.seen, runs).await?;
                take_environment(tx, new, op, self.now()).await?;
                run
            }
        };
        for environment in &new.environments {
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
                .await
                .map_err(db)?;
            let last = rows.first().map_or(count, |row| row.deployment_seq);
            deployments.insert(environment, last - count + 1);
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
            state: Set(if waits { "AWAITING_APPROVAL" } else { "CREATING" }.into()),
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
                    return Err(Error::AlreadyExists { kind: "Resource", name: change.resource.clone() });
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
            unique(done, "Resource", &new.plan.target)?;
        }
        Ok(former)
    }

    async fn runs_and_deployments(
        &self,
        tx: &Tx,
        new: &NewOperation,
        op: &operation::Model,
        steps: &mut [step::Model],
        numbers: &mut Numbers,
    ) -> Result<()> {
        let mut chosen = new.deployment_id.as_str();
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
                    revision: op
                        .settings
                        .get("revision")
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned(),
                    commit_id: String::new(),
                    cause: if new.plan.kind == Kind::Run { "CALL" } else { "CREATION" }.to_owned(),
                    steps: json!([]),
                    artifacts: json!([]),
                    error: None,
                    operation: op.name.clone(),
                    creator: op.requester.clone(),
                    create_time: self.now(),
                    end_time: None,
                };
                row.into_active_model().insert(tx).await.map_err(db)?;
            }
            let environment = &change.spec.environment;
            if let (true, Some(number)) =
                (change.spec.takes_artifact(), numbers.deployments.get_mut(environment))
            {
                // A chosen id is that of the first; further workloads of the environment get the next numbers.
                let id = match std::mem::take(&mut chosen) {
                    "" => format!("deployment-{number}"),
                    id => id.to_owned(),
                };
                *number += 1;
                step.subject = format!("{environment}/deployments/{id}");
                let row = deployment_row(self, op, change, &step.subject);
                let done =
                    deployment::Entity::insert(row.into_active_model()).exec_without_returning(tx).await;
                unique(done, "Deployment", &step.subject)?;
            }
        }
        Ok(())
    }
}

/// How many deployments a plan makes in each environment.
fn deployments_of(plan: &Plan) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for change in plan.steps().filter(|change| change.spec.takes_artifact()) {
        *counts.entry(change.spec.environment.clone()).or_default() += 1;
    }
    counts
}

fn unique<T>(done: std::result::Result<T, sea_orm::DbErr>, kind: &'static str, name: &str) -> Result<()> {
    match done.map_err(pavior_store::StoreError::from) {
        Ok(_) => Ok(()),
        Err(error) if error.is_unique() => Err(Error::AlreadyExists { kind, name: name.to_owned() }),
        Err(error) => Err(error.into()),
    }
}
