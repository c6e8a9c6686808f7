//! Writing an operation back, with everything that follows from its states.

use pavior_core::audit::AuditEvent;
use uuid::Uuid;

use crate::store::operation::aggregate::Aggregate;
use crate::store::operation::finish;
use crate::store::prelude::*;

impl Db {
    /// Writes an operation back and does what coming to rest asks for. Answers whether it came to rest, and the audit
    /// events.
    pub(crate) async fn write(
        &self,
        tx: &Tx,
        aggregate: &mut Aggregate,
        mut audits: Vec<AuditEvent>,
    ) -> Result<(bool, Vec<AuditEvent>)> {
        let rests = aggregate.just_rests();
        if rests {
            audits.extend(finish::finish(self, tx, aggregate).await?);
        }
        aggregate.save(tx).await?;
        Ok((rests, audits))
    }

    /// Changes an operation in a transaction of its own; `change` may run several times.
    pub(crate) async fn change_operation_unscoped<T, F>(&self, id: Uuid, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Db, &mut Aggregate) -> Result<T> + Send + Sync + 'static,
    {
        self.change(change, move |this, tx, change| {
            Box::pin(async move {
                let mut aggregate = Aggregate::get(this, tx, id).await?;
                let value = change(this, &mut aggregate)?;
                let (_, events) = this.write(tx, &mut aggregate, Vec::new()).await?;
                Ok(progress(value, events))
            })
        })
        .await
    }
}

/// Between its acceptance, what its steps make and its end, an operation goes on without an event for each move.
pub(crate) fn progress<T>(value: T, events: Vec<AuditEvent>) -> Recorded<T> {
    match events.is_empty() {
        true => Recorded::upkeep(value, "how far an operation is"),
        // What a driver did is recorded even if nothing else is taken any more.
        false => Recorded::all(value, events).happened(),
    }
}
