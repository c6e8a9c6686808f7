//! Deleting an operation that is done.

use pavior_store::Recorded;
use uuid::Uuid;

use crate::domain::names;
use crate::error::{Error, Result};
use crate::store::Db;
use crate::store::audit::{Caller, verb_event};
use crate::store::operation::aggregate::Aggregate;
use crate::store::operation::missing;

impl Db {
    /// Hides an operation that is done. It is kept, with its steps, events and log lines, for as long as operations
    /// are. False when it is not done. Whoever deleted it may do so again.
    pub async fn delete_unscoped(&self, id: Uuid, caller: &Caller) -> Result<bool> {
        let (this, caller) = (self.clone(), caller.clone());
        self.store
            .change(&self.outbox, move |tx| {
                let (this, caller) = (this.clone(), caller.clone());
                Box::pin(async move {
                    let mut aggregate =
                        Aggregate::load(&this, tx, id, false).await?.ok_or_else(|| missing(id))?;
                    if aggregate.op.delete_time.is_some() {
                        let own = aggregate.op.deleter == caller.name();
                        let name = aggregate.op.name.clone();
                        return match own {
                            true => Ok(Recorded::unchanged(true)),
                            false => Err(Error::NotFound { kind: "Operation", name }),
                        };
                    }
                    if !aggregate.op.state.done() {
                        return Ok(Recorded::unchanged(false));
                    }
                    let before = aggregate.op.clone();
                    caller.name().clone_into(&mut aggregate.op.deleter);
                    aggregate.op.delete_time = Some(this.now());
                    let summary = format!("operation `{}` was deleted", names::last(&aggregate.op.name));
                    let event = verb_event(&this, &caller, &before, &aggregate.op, summary);
                    let (_, events) = this.write(tx, &mut aggregate, vec![event]).await?;
                    Ok(Recorded::all(true, events))
                })
            })
            .await
    }
}
