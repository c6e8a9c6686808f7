//! Holding up what was under way when a database was set back: what the drivers did since the copy is not known here,
//! nor what people said since, so nothing goes on by itself.

use std::collections::BTreeSet;

use pavior_core::audit::PrincipalRef;
use pavior_store::{Store, outbox};
use uuid::Uuid;

use crate::domain::failure::{Failure, FailureCode, FailureReason, StepFailure};
use crate::domain::operation::{OperationEvent, OperationState, StepEvent, StepState};
use crate::store::entity::operation;
use crate::store::operation::aggregate::Aggregate;
use crate::store::prelude::*;
use crate::store::{SERVICE, audit};

/// How many operations are looked for at once.
const CHUNK: usize = 500;

impl Db {
    /// Operations that would go on by themselves, with a worker or with an answer of people, and those that somebody could
    /// take up, the oldest first, by id and name. Not those that were parked since the epoch of this database began: a
    /// restoration that is repeated has done that.
    pub async fn parkable_unscoped(&self) -> Result<Vec<(Uuid, String)>> {
        let parkable = OperationState::ALL.iter().copied().filter(|state| parkable(*state));
        let found: Vec<(Uuid, String, OperationState, Option<Uuid>)> = operation::Entity::find()
            .select_only()
            .column(operation::Column::Id)
            .column(operation::Column::Name)
            .column(operation::Column::State)
            .column(operation::Column::Parked)
            .filter(operation::Column::State.is_in(parkable))
            .order_by_asc(operation::Column::CreateTime)
            .into_tuple()
            .all(self.store().read())
            .await?;
        let epoch = outbox::position(self.store(), SERVICE).await?.epoch.unwrap_or_default();
        let done = |state: OperationState, parked: Option<Uuid>| {
            state == OperationState::Stuck && parked.is_some_and(|id| since(id, epoch))
        };
        let found = found.into_iter().filter(|(_, _, state, parked)| !done(*state, *parked));
        Ok(found.map(|(id, name, ..)| (id, name)).collect())
    }

    /// Parks an operation for operators, who take it up or give it up. One that has ended stays as it is.
    pub async fn park_unscoped(&self, id: Uuid, operator: &PrincipalRef) -> Result<bool> {
        self.change(operator.clone(), move |this, tx, operator| {
            Box::pin(async move {
                let mut found = Aggregate::load(this, tx, id, false).await?;
                let Some(aggregate) = &mut found else { return Ok(Recorded::unchanged(false)) };
                let before = aggregate.op.state;
                if !park(aggregate, this.ids.uuid())? {
                    return Ok(Recorded::unchanged(false));
                }
                let said = match before {
                    // It waits for an operator already.
                    OperationState::Stuck => vec![audit::ended_event(this, &aggregate.op)],
                    _ => Vec::new(),
                };
                let (_, mut events) = this.write(tx, aggregate, said).await?;
                events.iter_mut().for_each(|event| event.principal = operator.clone());
                Ok(Recorded::all(true, events))
            })
        })
        .await
    }
}

/// Those of some operations, by resource name, that are not there.
pub async fn unknown_unscoped(store: &Store, names: Vec<String>) -> Result<BTreeSet<String>> {
    let mut unknown: BTreeSet<String> = names.iter().cloned().collect();
    for some in names.chunks(CHUNK) {
        let known: Vec<String> = operation::Entity::find()
            .select_only()
            .column(operation::Column::Name)
            .filter(operation::Column::Name.is_in(some.iter().map(String::as_str)))
            .into_tuple()
            .all(store.read())
            .await?;
        unknown.retain(|name| !known.contains(name));
    }
    Ok(unknown)
}

/// Whether it would go on by itself, or somebody could take it up.
fn parkable(state: OperationState) -> bool {
    state == OperationState::Stuck || state.next(OperationEvent::Park).is_ok()
}

/// Whether an id (UUIDv7) was made after an epoch, in microseconds, had begun.
fn since(id: Uuid, epoch: i64) -> bool {
    let made = id.get_timestamp().map(|made| made.to_unix()).unwrap_or_default();
    i64::try_from(made.0).unwrap_or(i64::MAX).saturating_mul(1_000_000) + i64::from(made.1 / 1_000) >= epoch
}

fn park(aggregate: &mut Aggregate, anew: Uuid) -> Result<bool> {
    if !parkable(aggregate.op.state) {
        return Ok(false);
    }
    aggregate.op.parked = Some(anew);
    let message = match aggregate.goes_forward() {
        true => {
            "the database was set back to an older copy while this was under way: retry goes on with it, over what is \
             there by now; cancel gives it up and leaves everything as it is"
        }
        false => {
            "the database was set back to an older copy while this was being undone: retry goes on with that, and takes \
             down what is left of it; cancel gives it up and leaves everything as it is"
        }
    };
    let failure = StepFailure { code: FailureCode::Restored, message: message.to_owned() };
    aggregate.op.error = Some(Typed(match aggregate.op.error.take() {
        Some(Typed(before)) => before.held_up(message),
        None => Failure::new(FailureReason::OperationStuck, FailureCode::Restored, message),
    }));
    if aggregate.op.state == OperationState::Stuck {
        return Ok(true);
    }
    for index in 0..aggregate.steps.len() {
        let step = aggregate.at(index)?;
        if step.state.held() {
            step.fence += 1;
            step.remains |= step.state != StepState::Undoing;
            step.error = Some(Typed(failure.clone()));
            aggregate.step(index, StepEvent::Lose)?;
        }
    }
    aggregate.operation(OperationEvent::Park)?;
    Ok(true)
}
