//! Operations with their steps, as they are read.

use std::collections::{BTreeMap, BTreeSet};

use pavior_auth::Permit;
use pavior_resource::ListQuery;
use sea_orm::sea_query::{DynIden, IntoCondition};
use sea_orm::{ConnectionTrait, JoinType, RelationTrait};
use uuid::Uuid;

use crate::domain::environment::EnvironmentView;
use crate::domain::operation::{Operation, OperationState, Removed, Step};
use crate::domain::plan::Kind;
use crate::store::entity::operation::RemovedRow;
use crate::store::entity::{operation, step};
use crate::store::found;
use crate::store::operation::aggregate::OperationView;
use crate::store::page::Page;
use crate::store::prelude::*;

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
        id, organization, name, kind, action, target, project, state, cancel_requested, parked, plan, plan_digest,
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
        let Some(op) = self.find_kept_operation(permit, name).await? else {
            return found(None, "Operation", name);
        };
        // It may have been deleted between the two.
        let view = self.view_unscoped(op).await?;
        found(Some(view).filter(|view| view.op.delete_time.is_none()), "Operation", name)
    }

    /// An operation with its steps.
    pub async fn view_unscoped(&self, op: Operation) -> Result<OperationView> {
        let mut views = self.views_unscoped(vec![op]).await?;
        views.pop().ok_or_else(|| Error::Corrupt("the operation that was asked for".to_owned()))
    }

    /// Operations with their steps, in the same order. Each is read once more together with its steps, in one statement,
    /// beside the first of them: what is told of it is of one moment.
    pub async fn views_unscoped(&self, operations: Vec<Operation>) -> Result<Vec<OperationView>> {
        if operations.is_empty() {
            return Ok(Vec::new());
        }
        let of_first = step::Relation::Operation.def().on_condition(|step, _| first(step).into_condition());
        let rows = step::Entity::find()
            .join(JoinType::LeftJoin, of_first)
            .select_also(operation::Entity)
            .filter(step::Column::Operation.is_in(operations.iter().map(|op| op.id)))
            .order_by_asc(step::Column::Ordinal)
            .all(self.store.read())
            .await?;
        let mut ops: BTreeMap<Uuid, Operation> = BTreeMap::new();
        let mut steps: BTreeMap<Uuid, Vec<Step>> = BTreeMap::new();
        for (step, operation) in rows {
            ops.extend(operation.map(|operation| (operation.id, operation.into())));
            steps.entry(step.operation).or_default().push(step.into());
        }
        // One that had nothing to do has no steps.
        let view = |op: Operation| OperationView {
            steps: steps.remove(&op.id).unwrap_or_default(),
            op: ops.remove(&op.id).unwrap_or(op),
        };
        Ok(operations.into_iter().map(view).collect())
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

    /// The operation that removes what was left behind under the name of a resource, if any does.
    pub async fn removal_of_unscoped(&self, resource: &str) -> Result<Option<String>> {
        removal_of(self.store.read(), resource).await
    }

    /// What operations that were let begin and are not done work on, those included that wait for an operator.
    pub async fn under_way_unscoped(&self) -> Result<UnderWay> {
        let going_on = operation::Entity::find()
            .select_only()
            .column(operation::Column::Id)
            .filter(operation::Column::State.is_not_in(OperationState::DONE))
            .filter(operation::Column::State.is_not_in(OperationState::ASKING));
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

/// The first step of each operation.
fn first(step: DynIden) -> Expr {
    Expr::col((step, step::Column::Ordinal)).eq(0)
}

/// The operation that removes what was left behind under the name of a resource, if any does.
pub(crate) async fn removal_of(connection: &impl ConnectionTrait, resource: &str) -> Result<Option<String>> {
    let found = operation::Entity::find()
        // Such an operation is in no project, as what it removes.
        .filter(operation::Column::Project.eq(""))
        .filter(operation::Column::Kind.eq(Kind::DeleteOrphan))
        .filter(operation::Column::Target.eq(resource))
        .filter(operation::Column::State.is_not_in(OperationState::DONE));
    Ok(found.one(connection).await?.map(|operation| operation.name))
}
