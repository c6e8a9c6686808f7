//! What is forgotten, and when. Nothing that a living thing needs: an operation that has not ended or waits for an
//! operator, the run that is deployed or would be next, the deployment that stands.

use pavior_store::TxFuture;
use sea_orm::sea_query::{Query, SelectStatement};
use sea_orm::{DeleteMany, FromQueryResult, TryGetable};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::entity::{
    deployment, environment, event, log_chunk, operation, plan, project, resource, run, secret, step, timer,
};
use crate::domain::deployment::DeploymentState;
use crate::domain::names;
use crate::domain::operation::OperationState;
use crate::domain::run::RunState;
use crate::domain::timer::TimerKind;
use crate::store::prelude::*;

/// Rows of one transaction.
const BATCH: u64 = 200;
/// What has ended is kept at least so long, whatever the numbers: a request that is repeated gets its answer.
const SHORTEST: Duration = Duration::hours(48);

/// How long, and how many, are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long an operation is kept after its end, with its plan, steps and events.
    pub operations: Duration,
    /// Most operations of an organization that have ended.
    pub max_operations: u64,
    /// How long log lines are kept after the end of their operation.
    pub logs: Duration,
    /// Most runs of a pipeline.
    pub max_runs: u64,
    /// Most deployments of an environment.
    pub max_deployments: u64,
    /// How long a secret of a live resource is kept that a later one has taken the place of.
    pub secrets: Duration,
    /// Most such secrets of a resource.
    pub max_secrets: u64,
}

/// What was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Operations.
    pub operations: u64,
    /// Kept plans that expired unused.
    pub plans: u64,
    /// Operations whose log lines went.
    pub logs: u64,
    /// Runs.
    pub runs: u64,
    /// Deployments.
    pub deployments: u64,
    /// Secrets of resources that are gone, and those that later ones have taken the place of.
    pub secrets: u64,
    /// Timers of environments that are gone.
    pub timers: u64,
    /// Answers to repeated requests.
    pub answers: u64,
}

/// How many superseded secrets a resource has.
#[derive(Debug, FromQueryResult)]
struct SecretsOf {
    resource: Uuid,
    rows: i64,
}

impl Db {
    /// Forgets what is due, in small transactions. What one call leaves is left to the next.
    pub async fn sweep_unscoped(&self, retention: &Retention) -> Result<Swept> {
        let now = self.now();
        let swept = Swept {
            operations: self.sweep_operations(retention, now).await?,
            plans: self.sweep_plans_unscoped(now - Duration::hours(1)).await?,
            logs: self.sweep_logs(now - retention.logs).await?,
            runs: self.sweep_runs(retention.max_runs).await?,
            deployments: self.sweep_deployments(retention.max_deployments).await?,
            secrets: self.sweep_secrets(retention, now).await?,
            timers: self.sweep_timers().await?,
            answers: pavior_store::idempotency::sweep(&self.store, now).await?,
        };
        Ok(swept)
    }

    async fn sweep_operations(&self, retention: &Retention, now: OffsetDateTime) -> Result<u64> {
        let over = || operation::Entity::find().filter(operation::Column::State.is_in(OperationState::DONE));
        let old = over()
            .filter(operation::Column::EndTime.lt(now - retention.operations.max(SHORTEST)))
            .order_by_asc(operation::Column::EndTime);
        let old = self.keys(old, operation::Column::Id, BATCH).await?;
        let mut forgotten = self.forget_operations(old).await?;
        let organization = operation::Column::Organization;
        for (organization, surplus) in self.surplus(over(), organization, retention.max_operations).await? {
            let oldest = over()
                .filter(operation::Column::Organization.eq(organization))
                .filter(operation::Column::EndTime.lt(now - SHORTEST))
                .order_by_asc(operation::Column::EndTime);
            let oldest = self.keys(oldest, operation::Column::Id, surplus).await?;
            forgotten += self.forget_operations(oldest).await?;
        }
        Ok(forgotten)
    }

    /// The keys of the first rows, at most so many and those of one transaction.
    pub(super) async fn keys<E: EntityTrait, K: TryGetable + Send>(
        &self,
        rows: Select<E>,
        key: E::Column,
        most: u64,
    ) -> Result<Vec<K>> {
        let keys = rows.select_only().column(key).limit(Ord::min(most, BATCH)).into_tuple::<K>();
        Ok(keys.all(self.store.read()).await?)
    }

    /// What has the same in a column and is more than may have it, and by how much.
    async fn surplus<E: EntityTrait>(
        &self,
        rows: Select<E>,
        column: E::Column,
        most: u64,
    ) -> Result<Vec<(String, u64)>> {
        let groups: Vec<(String, i64)> = rows
            .select_only()
            .column(column)
            .column_as(column.count(), "rows")
            .group_by(column)
            .into_tuple()
            .all(self.store.read())
            .await?;
        let over = groups.into_iter().filter_map(|(name, rows)| {
            let rows = u64::try_from(rows).unwrap_or_default();
            Some((name, rows.checked_sub(most).filter(|over| *over > 0)?))
        });
        Ok(over.collect())
    }

    async fn forget_operations(&self, ids: Vec<Uuid>) -> Result<u64> {
        if ids.is_empty() {
            return Ok(0);
        }
        self.upkeep("operations that ended long ago", ids, |_, tx, ids| {
            Box::pin(async move {
                let kept = operation::Entity::find()
                    .filter(operation::Column::Id.is_in(ids.iter().copied()))
                    .filter(operation::Column::State.is_in(OperationState::DONE))
                    .all(tx)
                    .await?;
                let ids = || kept.iter().map(|op| op.id);
                let plans = kept.iter().map(|op| op.plan);
                remove(
                    tx,
                    log_chunk::Entity::delete_many().filter(log_chunk::Column::Operation.is_in(ids())),
                )
                .await?;
                remove(tx, event::Entity::delete_many().filter(event::Column::Operation.is_in(ids())))
                    .await?;
                remove(tx, step::Entity::delete_many().filter(step::Column::Operation.is_in(ids()))).await?;
                remove(tx, plan::Entity::delete_many().filter(plan::Column::Id.is_in(plans))).await?;
                remove(tx, operation::Entity::delete_many().filter(operation::Column::Id.is_in(ids()))).await
            })
        })
        .await
    }

    async fn sweep_logs(&self, before: OffsetDateTime) -> Result<u64> {
        let written = Query::select().column(log_chunk::Column::Operation).from(log_chunk::Entity).to_owned();
        let old = operation::Entity::find()
            .filter(operation::Column::State.is_in(OperationState::DONE))
            .filter(operation::Column::EndTime.lt(before))
            .filter(operation::Column::LogSeq.gt(0))
            .filter(operation::Column::Id.in_subquery(written));
        let ids: Vec<Uuid> = self.keys(old, operation::Column::Id, BATCH).await?;
        if ids.is_empty() {
            return Ok(0);
        }
        let swept = ids.len() as u64;
        let lines = log_chunk::Entity::delete_many().filter(log_chunk::Column::Operation.is_in(ids));
        self.store.upkeep("log lines of operations that ended long ago", removing(lines)).await?;
        Ok(swept)
    }

    async fn sweep_runs(&self, most: u64) -> Result<u64> {
        let mut forgotten = 0;
        for (pipeline, surplus) in self.surplus(run::Entity::find(), run::Column::Pipeline, most).await? {
            let old = run::Entity::find()
                .filter(run::Column::Pipeline.eq(pipeline.clone()))
                .filter(not_needed(self.next_run(&pipeline).await?))
                .order_by_asc(run::Column::CreateTime)
                .order_by_asc(run::Column::Uid);
            let old: Vec<Uuid> = self.keys(old, run::Column::Uid, surplus).await?;
            if !old.is_empty() {
                let old =
                    run::Entity::delete_many().filter(run::Column::Uid.is_in(old)).filter(not_needed(None));
                forgotten += self.store.upkeep("runs beyond those that are kept", removing(old)).await?;
            }
        }
        Ok(forgotten)
    }

    /// The run that a deployment in the project of a pipeline would take.
    async fn next_run(&self, pipeline: &str) -> Result<Option<Uuid>> {
        Ok(run::Entity::find()
            .select_only()
            .column(run::Column::Uid)
            .filter(run::Column::Project.eq(names::project_of(pipeline)))
            .filter(run::Column::State.eq(RunState::Succeeded))
            .order_by_desc(run::Column::CreateTime)
            .order_by_desc(run::Column::Uid)
            .limit(1)
            .into_tuple()
            .one(self.store.read())
            .await?)
    }

    async fn sweep_deployments(&self, most: u64) -> Result<u64> {
        let mut forgotten = 0;
        let environment = deployment::Column::Environment;
        for (environment, surplus) in self.surplus(deployment::Entity::find(), environment, most).await? {
            let old = deployment::Entity::find()
                .filter(deployment::Column::Environment.eq(environment))
                .filter(not_standing())
                .order_by_asc(deployment::Column::CreateTime)
                .order_by_asc(deployment::Column::Uid);
            let old: Vec<Uuid> = self.keys(old, deployment::Column::Uid, surplus).await?;
            if !old.is_empty() {
                let old = deployment::Column::Uid.is_in(old);
                let old = deployment::Entity::delete_many().filter(old).filter(not_standing());
                forgotten +=
                    self.store.upkeep("deployments beyond those that are kept", removing(old)).await?;
            }
        }
        Ok(forgotten)
    }

    /// Those of resources that are gone; then those that later ones have taken the place of, when they are old or many.
    async fn sweep_secrets(&self, retention: &Retention, now: OffsetDateTime) -> Result<u64> {
        let references = async |found: Select<secret::Entity>, most: u64| -> Result<Vec<String>> {
            let oldest = found.order_by_asc(secret::Column::CreateTime);
            self.keys(oldest, secret::Column::Reference, most).await
        };
        let gone = secret::Entity::find().filter(secret::Column::Resource.not_in_subquery(known()));
        let mut due = references(gone, BATCH).await?;
        let old = superseded().filter(secret::Column::CreateTime.lt(now - retention.secrets));
        due.extend(references(old, BATCH).await?);
        let many: Vec<SecretsOf> = superseded()
            .select_only()
            .column(secret::Column::Resource)
            .column_as(secret::Column::Reference.count(), "rows")
            .group_by(secret::Column::Resource)
            .into_model()
            .all(self.store.read())
            .await?;
        for SecretsOf { resource, rows } in many {
            let over = u64::try_from(rows).unwrap_or_default().saturating_sub(retention.max_secrets);
            if over > 0 {
                let own = superseded().filter(secret::Column::Resource.eq(resource));
                due.extend(references(own, over).await?);
            }
        }
        due.truncate(usize::try_from(BATCH).unwrap_or(usize::MAX));
        if due.is_empty() {
            return Ok(0);
        }
        // An operation may have begun to work with them.
        let unneeded = Condition::any()
            .add(secret::Column::Resource.not_in_subquery(known()))
            .add(Expr::exists(supersedes()));
        let due = secret::Entity::delete_many().filter(secret::Column::Reference.is_in(due)).filter(unneeded);
        self.store.upkeep("secrets that nothing needs any more", removing(due)).await
    }

    async fn sweep_timers(&self) -> Result<u64> {
        let gone = || {
            let environments =
                Query::select().column(environment::Column::Name).from(environment::Entity).to_owned();
            let projects = Query::select().column(project::Column::Name).from(project::Entity).to_owned();
            Condition::all()
                .add(timer::Column::Kind.eq(TimerKind::Expire))
                .add(timer::Column::Subject.not_in_subquery(environments))
                .add(timer::Column::Subject.not_in_subquery(projects))
        };
        let left = timer::Entity::find().filter(gone()).one(self.store.read()).await?;
        if left.is_none() {
            return Ok(0);
        }
        let due = timer::Entity::delete_many().filter(gone());
        self.store.upkeep("timers of environments that are gone", removing(due)).await
    }
}

/// A transaction that removes rows. The statement says again why they may go: they may be needed by now.
pub(super) fn removing<E: EntityTrait>(
    rows: DeleteMany<E>,
) -> impl for<'c> FnMut(&'c Tx) -> TxFuture<'c, u64, Error> + Send + 'static {
    move |tx| Box::pin(remove(tx, rows.clone()))
}

/// Removes rows and says how many.
async fn remove<E: EntityTrait>(tx: &Tx, rows: DeleteMany<E>) -> Result<u64> {
    Ok(rows.exec(tx).await.map(|done| done.rows_affected)?)
}

/// The resources that there are.
fn known() -> SelectStatement {
    Query::select().column(resource::Column::Uid).from(resource::Entity).to_owned()
}

/// Secrets of live resources in whose place later ones stand.
fn superseded() -> Select<secret::Entity> {
    secret::Entity::find().filter(Expr::exists(supersedes()))
}

/// The resource of a secret, if it is recorded without it, and no operation that is not over works on it: such a one may
/// go back to what was before.
fn supersedes() -> SelectStatement {
    let open = Query::select()
        .column(operation::Column::Id)
        .from(operation::Entity)
        .and_where(operation::Column::State.is_not_in(OperationState::DONE))
        .to_owned();
    let busy = Query::select()
        .column(step::Column::Resource)
        .from(step::Entity)
        .and_where(step::Column::Operation.in_subquery(open))
        .to_owned();
    Query::select()
        .column(resource::Column::Uid)
        .from(resource::Entity)
        .and_where(Expr::cust("resource.uid = secret.resource"))
        .and_where(Expr::cust("resource.sealed_inputs <> secret.reference"))
        .and_where(Expr::cust("CAST(resource.outputs AS TEXT) NOT LIKE '%' || secret.reference || '%'"))
        .and_where(resource::Column::Name.not_in_subquery(busy))
        .to_owned()
}

/// Runs that have ended, are deployed nowhere, and are not the one that a deployment would take. Asked for before the
/// oldest are taken: those that must stay would otherwise stand before the others for ever.
fn not_needed(next: Option<Uuid>) -> Condition {
    let deployed = Query::select().column(deployment::Column::Run).from(deployment::Entity).to_owned();
    Condition::all()
        .add(run::Column::EndTime.is_not_null())
        .add(run::Column::Name.not_in_subquery(deployed))
        .add_option(next.map(|next| run::Column::Uid.ne(next)))
}

/// Deployments that are over.
fn not_standing() -> Condition {
    Condition::all()
        .add(deployment::Column::State.is_in([DeploymentState::Superseded, DeploymentState::Failed]))
}
