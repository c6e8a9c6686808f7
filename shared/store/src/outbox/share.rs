//! What of the outbox belongs to which organization: one that makes events faster than they are delivered is refused
//! before the others are.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, QueryResult, Statement};

use super::OutboxContext;
use crate::{StoreError, Tx};

/// What of one organization waits.
pub(super) struct Share {
    events: i64,
    bytes: i64,
}

impl Share {
    fn read(row: &QueryResult) -> Result<Self, StoreError> {
        Ok(Self { events: row.try_get("", "waiting_events")?, bytes: row.try_get("", "waiting_bytes")? })
    }

    /// Refuses the last of its events when too much waits with it.
    pub(super) fn refuse_if_full(
        &self,
        context: &OutboxContext,
        organization: &str,
    ) -> Result<(), StoreError> {
        let limits = &context.limits;
        if self.events <= limits.max_organization_rows && self.bytes <= limits.max_organization_bytes {
            return Ok(());
        }
        Err(StoreError::OrganizationOutboxFull {
            organization: organization.to_owned(),
            // Without the one that is refused.
            rows: self.events - 1,
            limit_rows: limits.max_organization_rows,
            limit_bytes: limits.max_organization_bytes,
        })
    }
}

fn columns() -> String {
    let waiting = |column: &str| {
        format!(
            "outbox_appended.{column} - COALESCE((SELECT d.{column} FROM outbox_delivered d \
             WHERE d.service = $1 AND d.organization = $2), 0) AS waiting_{column}"
        )
    };
    format!("{}, {}", waiting("events"), waiting("bytes"))
}

/// What would wait with one more event of `organization`.
pub(super) async fn waiting(
    tx: &Tx,
    context: &OutboxContext,
    organization: &str,
) -> Result<Share, StoreError> {
    let sql = format!("SELECT {} FROM outbox_appended WHERE service = $1 AND organization = $2", columns());
    let values: [sea_orm::Value; 2] = [context.service.clone().into(), organization.into()];
    let row =
        tx.query_one_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    let share = row.as_ref().map(Share::read).transpose()?.unwrap_or(Share { events: 0, bytes: 0 });
    Ok(Share { events: share.events + 1, ..share })
}

/// Counts an event of `organization`, and tells what waits with it. One statement, whatever waits.
pub(super) async fn take(
    tx: &Tx,
    context: &OutboxContext,
    organization: &str,
    bytes: i64,
) -> Result<Share, StoreError> {
    let sql = format!(
        "INSERT INTO outbox_appended (service, organization, events, bytes) VALUES ($1, $2, 1, $3) \
         ON CONFLICT (service, organization) DO UPDATE SET \
         events = outbox_appended.events + 1, bytes = outbox_appended.bytes + excluded.bytes RETURNING {}",
        columns()
    );
    let values: [sea_orm::Value; 3] = [context.service.clone().into(), organization.into(), bytes.into()];
    let row = tx
        .query_one_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values))
        .await?
        .ok_or_else(|| StoreError::Corrupt("outbox share gave no numbers".to_owned()))?;
    Share::read(&row)
}

/// Counts what was delivered, given by organization as events and bytes.
pub(super) async fn give_back(
    tx: &Tx,
    service: &str,
    delivered: BTreeMap<String, (i64, i64)>,
) -> Result<(), StoreError> {
    // In the order of the organizations, so that no two relays wait for each other.
    for (organization, (events, bytes)) in delivered {
        let sql = "INSERT INTO outbox_delivered (service, organization, events, bytes) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (service, organization) DO UPDATE SET \
                   events = outbox_delivered.events + excluded.events, bytes = outbox_delivered.bytes + excluded.bytes";
        let values: [sea_orm::Value; 4] = [service.into(), organization.into(), events.into(), bytes.into()];
        tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    }
    Ok(())
}
