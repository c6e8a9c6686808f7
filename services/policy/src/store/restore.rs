//! Ends approvals of operations that were lost because the database of provisioning was restored from an older copy.

use std::sync::Arc;

use pavior_core::audit::{Affected, AuditEvent, Cause, Change, PrincipalRef};
use pavior_core::id_gen::IdGen;
use pavior_store::outbox::OutboxContext;
use pavior_store::{Recorded, Store, StoreError, micros};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait as _, EntityTrait as _, ExprTrait as _, QueryFilter as _, QueryOrder as _};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::entity::approval as row;
use super::entity::approval::State;

/// A pending approval of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its unique id.
    pub uid: Uuid,
    /// Its resource name.
    pub name: String,
    /// The resource name of its operation.
    pub operation: String,
}

/// Why such an approval ends.
const REASON: &str = "its operation was lost when the database of provisioning was set back";

/// All pending approvals of operations.
pub(crate) async fn pending_unscoped(store: &Store) -> Result<Vec<Pending>, StoreError> {
    let found = row::Entity::find()
        .filter(row::Column::State.eq(State::Pending))
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

/// Invalidates one. Returns whether it was still pending.
pub(crate) async fn invalidate_unscoped(
    store: &Store,
    outbox: &OutboxContext,
    ids: Arc<dyn IdGen>,
    operator: &PrincipalRef,
    lost: &Pending,
) -> Result<bool, StoreError> {
    let (operator, lost, clock) = (operator.clone(), lost.clone(), outbox.clock.clone());
    store
        .change(outbox, move |tx| {
            let now = clock.now();
            let event = invalidated(ids.as_ref(), now, operator.clone(), &lost);
            let (uid, now) = (lost.uid, micros(now));
            Box::pin(async move {
                let done = row::Entity::update_many()
                    .col_expr(row::Column::State, Expr::value(State::Invalidated))
                    .col_expr(row::Column::EndReason, Expr::value(REASON))
                    .col_expr(row::Column::UpdateTime, Expr::value(now))
                    .col_expr(row::Column::Revision, Expr::col(row::Column::Revision).add(1))
                    .filter(row::Column::Uid.eq(uid))
                    .filter(row::Column::State.eq(State::Pending))
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

fn invalidated(ids: &dyn IdGen, now: OffsetDateTime, operator: PrincipalRef, lost: &Pending) -> AuditEvent {
    let shown = |state: State| Some(json!({ "state": state, "operation": lost.operation }));
    AuditEvent {
        target: Some(Affected::new("policy.pavior.dev/Approval", &lost.name)),
        cause: Cause { operation: lost.operation.clone(), ..Cause::default() },
        change: Some(Change {
            before: shown(State::Pending),
            after: shown(State::Invalidated),
            ..Change::default()
        }),
        summary: format!("approval `{}` became void: {REASON}", lost.name),
        ..AuditEvent::new(ids.uuid(), now, "platform.restore", operator)
    }
}
