//! Parking what was under way when a database was set back: what the drivers did since the copy is not known here, nor
//! what people said since, so nothing goes on by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use pavior_core::audit::PrincipalRef;
use pavior_store::{Recorded, Store};
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::json;
use uuid::Uuid;

use super::entity::{environment, operation, timer};
use super::journal::{Aggregate, step_state};
use super::{Db, audit, db, timers};
use crate::domain::state::{OperationEvent, OperationState, StepEvent, StepState};
use crate::error::Result;

impl Db {
    /// Operations that would go on by themselves, with a worker or with an answer of people, the oldest first, by id and
    /// name.
    pub async fn parkable_unscoped(&self) -> Result<Vec<(Uuid, String)>> {
        let parkable = OperationState::ALL.iter().filter(|state| state.next(OperationEvent::Park).is_ok());
        operation::Entity::find()
            .select_only()
            .column(operation::Column::Id)
            .column(operation::Column::Name)
            .filter(operation::Column::State.is_in(parkable.map(|state| state.as_str())))
            .order_by_asc(operation::Column::CreateTime)
            .into_tuple()
            .all(self.store().read())
            .await
            .map_err(db)
    }

    /// Parks an operation for operators, who retry it: one that has not begun as it is, of any other what is not done is
    /// not done any more. One that has ended stays as it is.
    pub async fn park_unscoped(&self, id: Uuid, operator: &PrincipalRef) -> Result<bool> {
        let (this, operator) = (self.clone(), operator.clone());
        self.store
            .change(&self.outbox, move |tx| {
                let (this, operator) = (this.clone(), operator.clone());
                Box::pin(async move {
                    let Some(mut aggregate) = Aggregate::load(&this, tx, id, false).await? else {
                        return Ok(Recorded::unchanged(false));
                    };
                    if !park(&mut aggregate)? {
                        return Ok(Recorded::unchanged(false));
                    }
                    let (_, mut events) = this.write(tx, &mut aggregate, Vec::new()).await?;
                    events.iter_mut().for_each(|event| event.principal = operator.clone());
                    Ok(Recorded::all(true, events))
                })
            })
            .await
    }

    /// Environments that would be taken down within the grace, by name: since the copy their time may have been prolonged.
    pub async fn expiring_unscoped(&self, grace: Duration) -> Result<Vec<String>> {
        let by = self.wall_time(self.store.read()).await?.saturating_add(micros(grace));
        timer::Entity::find()
            .select_only()
            .column(timer::Column::Subject)
            .filter(timer::Column::Kind.eq(timers::EXPIRE))
            .filter(timer::Column::Due.lt(by))
            .order_by_asc(timer::Column::Subject)
            .into_tuple()
            .all(self.store.read())
            .await
            .map_err(db)
    }

    /// Lets an environment stand for the grace, and says so; one that stands longer stays as it is.
    pub async fn spare_unscoped(&self, name: &str, grace: Duration, operator: &PrincipalRef) -> Result<bool> {
        let (this, name, operator) = (self.clone(), name.to_owned(), operator.clone());
        self.store
            .change(&self.outbox, move |tx| {
                let (this, name, operator) = (this.clone(), name.clone(), operator.clone());
                Box::pin(async move {
                    let due = this.wall_time(tx).await?.saturating_add(micros(grace));
                    let row = environment::Entity::find()
                        .filter(environment::Column::Name.eq(name.as_str()))
                        .lock_exclusive()
                        .one(tx)
                        .await
                        .map_err(db)?;
                    let moved = timer::Entity::update_many()
                        .col_expr(timer::Column::Due, due.into())
                        .col_expr(timer::Column::Attempt, 0.into())
                        .filter(timer::Column::Subject.eq(name))
                        .filter(timer::Column::Kind.eq(timers::EXPIRE))
                        .filter(timer::Column::Due.lt(due))
                        .exec(tx)
                        .await
                        .map_err(db)?;
                    let Some(row) = row.filter(|_| moved.rows_affected > 0) else {
                        return Ok(Recorded::unchanged(false));
                    };
                    let expire_time = pavior_store::from_micros(due);
                    let set = environment::ActiveModel {
                        expire_time: Set(expire_time),
                        update_time: Set(this.now()),
                        revision: Set(row.revision + 1),
                        ..Default::default()
                    };
                    environment::Entity::update_many()
                        .set(set)
                        .filter(environment::Column::Uid.eq(row.uid))
                        .exec(tx)
                        .await
                        .map_err(db)?;
                    Ok(Recorded::new(true, audit::spared_event(&this, operator, &row, expire_time)))
                })
            })
            .await
    }
}

/// How many operations are looked for at once.
const CHUNK: usize = 500;

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
            .await
            .map_err(db)?;
        unknown.retain(|name| !known.contains(name));
    }
    Ok(unknown)
}

fn park(aggregate: &mut Aggregate) -> Result<bool> {
    if aggregate.state.next(OperationEvent::Park).is_err() {
        return Ok(false);
    }
    let untouched = aggregate.untouched();
    let message = "the database was set back to an older copy while this was under way";
    let error = json!({ "code": "RESTORED", "message": message });
    let reversible = aggregate.kind()?.reversible();
    for index in 0..aggregate.steps.len() {
        let Some(step) = aggregate.steps.get_mut(index) else { break };
        let state = step_state(step)?;
        if state.held() {
            step.fence += 1;
            step.error = Some(error.clone());
            aggregate.step(index, StepEvent::Lose)?;
        } else if reversible && !untouched && matches!(state, StepState::Blocked | StepState::Ready) {
            aggregate.step(index, StepEvent::Skip)?;
        }
    }
    aggregate.blame(json!({
        "reason": "OPERATION_STUCK", "step": "", "code": "RESTORED", "message": message,
    }));
    aggregate.operation(OperationEvent::Park)?;
    Ok(true)
}

fn micros(grace: Duration) -> i64 {
    i64::try_from(grace.as_micros()).unwrap_or(i64::MAX)
}
