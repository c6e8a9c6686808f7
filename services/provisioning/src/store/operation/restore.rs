//! Holding up what was under way when a database was set back: what the drivers did since the copy is not known here,
//! nor what people said since, so nothing goes on by itself.

use std::collections::BTreeSet;

use pavior_core::audit::PrincipalRef;
use pavior_store::Store;
use uuid::Uuid;

use crate::domain::failure::{Failure, FailureCode, FailureReason, StepFailure};
use crate::domain::operation::{OperationEvent, OperationState, StepEvent};
use crate::store::entity::operation;
use crate::store::operation::aggregate::Aggregate;
use crate::store::prelude::*;

/// How many operations are looked for at once.
const CHUNK: usize = 500;

impl Db {
    /// Operations that would go on by themselves, with a worker or with an answer of people, the oldest first, by id and
    /// name.
    pub async fn parkable_unscoped(&self) -> Result<Vec<(Uuid, String)>> {
        let parkable = OperationState::ALL.iter().filter(|state| state.next(OperationEvent::Park).is_ok());
        Ok(operation::Entity::find()
            .select_only()
            .column(operation::Column::Id)
            .column(operation::Column::Name)
            .filter(operation::Column::State.is_in(parkable.copied()))
            .order_by_asc(operation::Column::CreateTime)
            .into_tuple()
            .all(self.store().read())
            .await?)
    }

    /// Parks an operation for operators, who retry it: one that has not begun as it is, of any other what is not done is
    /// not done any more. One that has ended stays as it is.
    pub async fn park_unscoped(&self, id: Uuid, operator: &PrincipalRef) -> Result<bool> {
        self.change(operator.clone(), move |this, tx, operator| {
            Box::pin(async move {
                let mut found = Aggregate::load(this, tx, id, false).await?;
                let Some(aggregate) = &mut found else { return Ok(Recorded::unchanged(false)) };
                if !park(aggregate)? {
                    return Ok(Recorded::unchanged(false));
                }
                let (_, mut events) = this.write(tx, aggregate, Vec::new()).await?;
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

fn park(aggregate: &mut Aggregate) -> Result<bool> {
    if aggregate.op.state.next(OperationEvent::Park).is_err() {
        return Ok(false);
    }
    let untouched = aggregate.view().untouched();
    let message = "the database was set back to an older copy while this was under way";
    let failure = StepFailure { code: FailureCode::Restored, message: message.to_owned() };
    let reversible = aggregate.op.kind.reversible();
    for index in 0..aggregate.steps.len() {
        let step = aggregate.at(index)?;
        if step.state.held() {
            step.fence += 1;
            step.error = Some(Typed(failure.clone()));
            aggregate.step(index, StepEvent::Lose)?;
        } else if reversible && !untouched && step.state.waits() {
            aggregate.step(index, StepEvent::Skip)?;
        }
    }
    aggregate.blame(Failure::new(FailureReason::OperationStuck, FailureCode::Restored, message));
    aggregate.operation(OperationEvent::Park)?;
    Ok(true)
}
