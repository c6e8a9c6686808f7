//! Operations with their steps, as they are read.

use std::collections::{BTreeMap, BTreeSet};

use pavior_auth::Permit;
use pavior_resource::ListQuery;
use uuid::Uuid;

use crate::domain::environment::EnvironmentView;
use crate::domain::operation::{Operation, OperationState, Removed, Step};
use crate::store::entity::operation::RemovedRow;
use crate::store::entity::{operation, step};
use crate::store::operation::aggregate::OperationView;
use crate::store::page::Page;
use crate::store::prelude::*;
use crate::store::{found, grouped};

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
    pub async fn operations_page(&self, permit: &Permit, query: &ListQuery) -> Result<Page<Operation>> {
        use operation::Column as C;
        let fields = self
            .fields::<operation::Entity>()
            .text("action", C::Action)
            .text("target", C::Target)
            .text("requester", C::Requester)
            .enumeration("state", C::State, words!(OperationState))
            .bool_expr("done", Expr::col(C::State).is_in(OperationState::DONE));
        let select = operation::Entity::find()
            .filter(C::Organization.eq(permit.organization()))
            .filter(C::DeleteTime.is_null());
        self.page(select, &fields, query).await
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
        let rows = step::Entity::find()
            .filter(step::Column::Operation.eq(operation))
            .order_by_asc(step::Column::Ordinal);
        self.all(rows).await
    }

    /// The steps of several operations, each in order.
    pub async fn steps_of_unscoped(&self, operations: Vec<Uuid>) -> Result<BTreeMap<Uuid, Vec<Step>>> {
        if operations.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows = step::Entity::find()
            .filter(step::Column::Operation.is_in(operations))
            .order_by_asc(step::Column::Ordinal);
        Ok(grouped(self.all(rows).await?.into_iter().map(|step: Step| (step.operation, step))))
    }

    /// One operation by its id.
    pub async fn operation_by_id_unscoped(&self, id: Uuid) -> Result<Option<Operation>> {
        let row = operation::Entity::find_by_id(id).one(self.store.read()).await?;
        Ok(row.map(Operation::from))
    }

    /// The operation that carries a plan out.
    pub async fn operation_of_plan(&self, permit: &Permit, plan: Uuid) -> Result<Option<Operation>> {
        let row = operation::Entity::find()
            .filter(operation::Column::Organization.eq(permit.organization()))
            .filter(operation::Column::Plan.eq(plan));
        self.one(row).await
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
            .await?;
        let (keys, resources) = rows.into_iter().unzip();
        Ok(UnderWay { keys, resources })
    }
}
