//! Parking what was under way when a database was set back: what the drivers did since the copy is not known here, so
//! nothing goes on by itself.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::json;
use uuid::Uuid;

use super::entity::operation;
use super::journal::step_state;
use super::{Db, db};
use crate::domain::state::{OperationEvent, OperationState, StepEvent, StepState};
use crate::error::Result;

impl Db {
    /// Operations that a worker would go on with, the oldest first, by id and name.
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

    /// Parks an operation for operators, who retry it; one that has ended or has not begun stays as it is.
    pub async fn park_unscoped(&self, id: Uuid) -> Result<bool> {
        self.change(id, |_, aggregate| {
            if aggregate.state.next(OperationEvent::Park).is_err() {
                return Ok(false);
            }
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
                } else if reversible && matches!(state, StepState::Blocked | StepState::Ready) {
                    aggregate.step(index, StepEvent::Skip)?;
                }
            }
            aggregate.blame(json!({
                "reason": "OPERATION_STUCK", "step": "", "code": "RESTORED", "message": message,
            }));
            aggregate.operation(OperationEvent::Park)?;
            Ok(true)
        })
        .await
    }
}
