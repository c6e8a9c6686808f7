//! Approvals about operations that nobody knows any more: the database that held those was set back.

use std::sync::Arc;

use pavior_core::audit::{Affected, AuditEvent, Cause, Change, PrincipalRef};
use pavior_core::clock::Clock;
use pavior_core::id::IdGen;
use pavior_store::outbox::OutboxContext;
use pavior_store::{Recorded, Store, StoreError, micros};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait as _, EntityTrait as _, ExprTrait as _, QueryFilter as _, QueryOrder as _};
use serde_json::json;
use uuid::Uuid;

use super::entity::approval as row;
use crate::domain::approval::State;

/// An approval that people can still answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its unique id.
    pub uid: Uuid,
    /// Its resource name.
    pub name: String,
    /// The operation that it is about, by resource name.
    pub operation: String,
}

/// Why such a request ends.
const REASON: &str = "its operation was lost when the database of provisioning was set back";

/// Every approval that people can still answer and that is about an operation.
pub(crate) async fn pending_unscoped(store: &Store) -> Result<Vec<Pending>, StoreError> {
    let found = row::Entity::find()
        .filter(row::Column::State.eq(State::Pending.as_str()))
        .filter(row::Column::Operation.ne(""))
        .order_by_asc(row::Column::CreateTime)
        .all(store.read())
        .await?;
    let pending = |row: row::Model| Pending {
        uid: row.uid,
        name: format!("organizations/{}/approvals/{}", row.organization, row.id),
        operation: row.operation,
    };
    Ok(found.into_iter().map(pending).collect())
}

/// Ends one; false when it has ended already.
pub(crate) async fn invalidate_unscoped(
    store: &Store,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
    operator: &PrincipalRef,
    lost: &Pending,
) -> Result<bool, StoreError> {
    let outbox = OutboxContext::new(store, crate::ROLE, "restore", clock.clone());
    let (operator, lost) = (operator.clone(), lost.clone());
    store
        .change(&outbox, move |tx| {
            let event = ended(ids.as_ref(), clock.as_ref(), operator.clone(), &lost);
            let (uid, now) = (lost.uid, micros(clock.now()));
            Box::pin(async move {
                let done = row::Entity::update_many()
                    .col_expr(row::Column::State, Expr::value(State::Invalidated.as_str()))
                    .col_expr(row::Column::EndReason, Expr::value(REASON))
                    .col_expr(row::Column::UpdateTime, Expr::value(now))
                    .col_expr(row::Column::Revision, Expr::col(row::Column::Revision).add(1))
                    .filter(row::Column::Uid.eq(uid))
                    .filter(row::Column::State.eq(State::Pending.as_str()))
                    .exec(tx)
                    .await?;
                match done.rows_affected {
                    0 => Ok(Recorded::unchanged(false)),
                    _ => Ok(Recorded::new(true, event)),
                }
            })
        })
        .await
}

fn ended(ids: &dyn IdGen, clock: &dyn Clock, operator: PrincipalRef, lost: &Pending) -> AuditEvent {
    let shown = |state: State| Some(json!({ "state": state.as_str(), "operation": lost.operation }));
    AuditEvent {
        target: Some(Affected::new("policy.pavior.dev/Approval", &lost.name)),
        cause: Cause { operation: lost.operation.clone(), ..Cause::default() },
        change: Some(Change {
            before: shown(State::Pending),
            after: shown(State::Invalidated),
            ..Change::default()
        }),
        summary: format!("approval `{}` became void: {REASON}", lost.name),
        ..AuditEvent::new(ids.uuid(), clock.now(), "platform.restore", operator)
    }
}
