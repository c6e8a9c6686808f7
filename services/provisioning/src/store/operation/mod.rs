//! Operations with their steps, and the log of the engine: one file for each thing that happens to an operation.

pub(crate) mod accept;
pub(crate) mod aggregate;
pub(crate) mod approve;
mod cancel;
pub(crate) mod claim;
pub(crate) mod complete;
mod delete;
mod effects;
mod finish;
pub(crate) mod health;
mod hold;
mod lease;
pub(crate) mod log;
mod recover;
pub(crate) mod restore;
pub(crate) mod retry;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use pavior_auth::Permit;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use crate::domain::environment::EnvironmentView;
use crate::domain::operation::{Operation, OperationState, Removed, Step};
use crate::error::{Error, Result};
use crate::store::entity::operation::RemovedRow;
use crate::store::entity::{operation, step};
use crate::store::operation::aggregate::Aggregate;
use crate::store::operation::complete::progress;
use crate::store::page::{Listing, Page, key_of};
use crate::store::{Db, db, found};

/// An operation with its steps.
#[derive(Debug, Clone)]
pub struct OperationView {
    /// The operation.
    pub op: Operation,
    /// Its steps, in order.
    pub steps: Vec<Step>,
}

/// What operations are working on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Keys of their calls.
    pub keys: BTreeSet<String>,
    /// Resources, by name.
    pub resources: BTreeSet<String>,
}

from_row! {
    operation::Model => Operation {
        id, organization, name, kind, action, target, project, state, cancel_requested, plan, plan_digest,
        requester, approval, settings, event_seq, log_seq, owner, environment_class, canceller, deleter,
        delete_time, create_time, start_time, end_time
    } with {
        principal: principal.0, error: error.map(|typed| typed.0), removed: gone.map(|typed| typed.0.into()),
        labels: labels.0
    } without {
        request_id, approvals, generation, engine_version, deadline, undo_timeout, update_time
    }
}

impl From<RemovedRow> for Removed {
    fn from(row: RemovedRow) -> Self {
        match row {
            RemovedRow::Project(row) => Self::Project(Box::new((*row).into())),
            RemovedRow::Environment { row, endpoints, deployments } => {
                let environment = (*row).into();
                Self::Environment(Box::new(EnvironmentView { environment, endpoints, deployments }))
            }
        }
    }
}

from_row! {
    step::Model => Step {
        id, operation, organization, name, resource, driver, action, subject, state, former_gone, attempt,
        undo_attempt, waits, fence, idempotency_key, checkpoint, start_time, end_time
    } with {
        spec: spec.0, prior: prior.map(|typed| typed.0), error: error.map(|typed| typed.0)
    } without {
        ordinal, driver_version, depends_on, undoable, remains, worker, lease_until, not_before, outputs
    }
}

by_name! {
    /// An operation, also one that was deleted and is kept for the record.
    kept_operation, find_kept_operation, operation => Operation;
}

impl Db {
    /// Operations of the permit's organization, newest first.
    pub async fn operations_page(&self, permit: &Permit, listing: &Listing) -> Result<Page<Operation>> {
        use operation::Column as C;
        let fields = self
            .fields()
            .text("name", C::Name)
            .text("action", C::Action)
            .text("target", C::Target)
            .text("requester", C::Requester)
            .enumeration("state", C::State, words!(OperationState))
            .bool_expr("done", Expr::col(C::State).is_in(OperationState::DONE))
            .timestamp("create_time", C::CreateTime);
        let select = operation::Entity::find()
            .filter(C::Organization.eq(permit.organization()))
            .filter(C::DeleteTime.is_null());
        self.page(select, &fields, C::Id, listing, "create_time desc", |row, key| {
            key_of(key, row.id, &row.name, row.create_time)
        })
        .await
    }

    /// An operation with its steps.
    pub async fn operation(&self, permit: &Permit, name: &str) -> Result<OperationView> {
        let op = self.find_kept_operation(permit, name).await?.filter(|op| op.delete_time.is_none());
        let op = found(op, "Operation", name)?;
        let steps = self.steps_unscoped(op.id).await?;
        Ok(OperationView { op, steps })
    }

    /// The steps of an operation, in order.
    pub async fn steps_unscoped(&self, operation: Uuid) -> Result<Vec<Step>> {
        step::Entity::find()
            .filter(step::Column::Operation.eq(operation))
            .order_by_asc(step::Column::Ordinal)
            .all(self.store.read())
            .await
            .map(|rows| rows.into_iter().map(Step::from).collect())
            .map_err(db)
    }

    /// The steps of several operations, each in order.
    pub async fn steps_of_unscoped(&self, operations: Vec<Uuid>) -> Result<BTreeMap<Uuid, Vec<Step>>> {
        let mut steps: BTreeMap<Uuid, Vec<Step>> = BTreeMap::new();
        if operations.is_empty() {
            return Ok(steps);
        }
        let rows = step::Entity::find()
            .filter(step::Column::Operation.is_in(operations))
            .order_by_asc(step::Column::Ordinal)
            .all(self.store.read())
            .await
            .map_err(db)?;
        for row in rows {
            steps.entry(row.operation).or_default().push(row.into());
        }
        Ok(steps)
    }

    /// One operation by its id.
    pub async fn operation_by_id_unscoped(&self, id: Uuid) -> Result<Option<Operation>> {
        let row = operation::Entity::find_by_id(id).one(self.store.read()).await.map_err(db)?;
        Ok(row.map(Operation::from))
    }

    /// The operation that carries a plan out.
    pub async fn operation_of_plan(&self, permit: &Permit, plan: Uuid) -> Result<Option<Operation>> {
        operation::Entity::find()
            .filter(operation::Column::Organization.eq(permit.organization()))
            .filter(operation::Column::Plan.eq(plan))
            .one(self.store.read())
            .await
            .map(|row| row.map(Operation::from))
            .map_err(db)
    }

    /// What operations that are not done are working on, those included that wait for an operator.
    pub async fn under_way_unscoped(&self) -> Result<UnderWay> {
        let going_on = operation::Entity::find()
            .select_only()
            .column(operation::Column::Id)
            .filter(operation::Column::State.is_not_in(OperationState::DONE));
        let rows: Vec<(String, String)> = step::Entity::find()
            .select_only()
            .columns([step::Column::IdempotencyKey, step::Column::Resource])
            .filter(step::Column::Operation.in_subquery(QuerySelect::query(&mut going_on.clone()).to_owned()))
            .into_tuple()
            .all(self.store.read())
            .await
            .map_err(db)?;
        let (keys, resources) = rows.into_iter().unzip();
        Ok(UnderWay { keys, resources })
    }

    /// Changes an operation in a transaction of its own; `change` may run several times.
    pub(crate) async fn change<T, F>(&self, id: Uuid, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Db, &mut Aggregate) -> Result<T> + Send + Sync + 'static,
    {
        let change = std::sync::Arc::new(change);
        let this = self.clone();
        self.store
            .change(&self.outbox, move |tx| {
                let (this, change) = (this.clone(), change.clone());
                Box::pin(async move {
                    let mut aggregate = Aggregate::load(&this, tx, id, false)
                        .await?
                        .ok_or(Error::NotFound { kind: "Operation", name: id.to_string() })?;
                    let value = change(&this, &mut aggregate)?;
                    let (_, events) = this.write(tx, &mut aggregate, Vec::new()).await?;
                    Ok(progress(value, events))
                })
            })
            .await
    }
}

fn missing(id: Uuid) -> Error {
    Error::NotFound { kind: "Operation", name: id.to_string() }
}
