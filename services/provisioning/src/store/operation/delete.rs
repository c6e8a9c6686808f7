//! Deleting an operation that is done.

use uuid::Uuid;

use crate::store::audit::{Caller, verb_event};
use crate::store::operation::aggregate::Aggregate;
use crate::store::prelude::*;

impl Db {
    /// Hides an operation that is done. It is kept, with its steps, events and log lines, for as long as operations
    /// are. False when it is not done. Whoever deleted it may do so again.
    pub async fn delete_unscoped(&self, id: Uuid, caller: &Caller) -> Result<bool> {
        self.change(caller.clone(), move |this, tx, caller| {
            Box::pin(async move {
                let mut aggregate = Aggregate::get(this, tx, id).await?;
                if aggregate.op.delete_time.is_some() {
                    return match aggregate.op.deleter == caller.name() {
                        true => Ok(Recorded::unchanged(true)),
                        false => Err(Error::NotFound { kind: "Operation", name: aggregate.op.name }),
                    };
                }
                if !aggregate.op.state.done() {
                    return Ok(Recorded::unchanged(false));
                }
                let before = aggregate.op.clone();
                caller.name().clone_into(&mut aggregate.op.deleter);
                aggregate.op.delete_time = Some(this.now());
                let event = verb_event(this, caller, &before, &aggregate.op, "deleted");
                let (_, events) = this.write(tx, &mut aggregate, vec![event]).await?;
                Ok(Recorded::all(true, events))
            })
        })
        .await
    }
}
