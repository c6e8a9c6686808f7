//! What is declared of each driver, for the platform itself: no caller sees it without a permit.

use std::collections::BTreeSet;

use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect};

use super::entity::{operation, resource, step};
use super::retention::done_states;
use super::{Db, db};
use crate::error::Result;

/// A resource as it is recorded, as far as its driver is concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromQueryResult)]
pub struct Recorded {
    /// The driver's id.
    pub driver: String,
    /// The driver's name of it; empty as long as nothing is made.
    pub identity: String,
    /// Its resource name.
    pub name: String,
    /// The organization's id.
    pub organization: String,
    /// The id of its type.
    pub type_id: String,
    /// Its state.
    pub state: String,
    /// The inputs of its last apply, with secrets as references.
    pub inputs: serde_json::Value,
    /// Where they are sealed when there are secrets in them; else empty.
    pub sealed_inputs: String,
}

impl From<&resource::Model> for Recorded {
    fn from(row: &resource::Model) -> Self {
        Self {
            driver: row.driver.clone(),
            identity: row.identity.clone(),
            name: row.name.clone(),
            organization: row.organization.clone(),
            type_id: row.type_id.clone(),
            state: row.state.clone(),
            inputs: row.inputs.clone(),
            sealed_inputs: row.sealed_inputs.clone(),
        }
    }
}

/// What operations are working on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Keys of their calls.
    pub keys: BTreeSet<String>,
    /// Resources, by name.
    pub resources: BTreeSet<String>,
}

impl Db {
    /// The identities that are declared of a driver.
    pub async fn declared_of_unscoped(&self, driver: &str) -> Result<BTreeSet<String>> {
        let identities: Vec<String> = resource::Entity::find()
            .select_only()
            .column(resource::Column::Identity)
            .filter(resource::Column::Driver.eq(driver))
            .filter(resource::Column::Identity.ne(""))
            .into_tuple()
            .all(self.store.read())
            .await
            .map_err(db)?;
        Ok(identities.into_iter().collect())
    }

    /// Every resource that has been made, of one organization or of all, by name.
    pub async fn recorded_unscoped(&self, organization: Option<&str>) -> Result<Vec<Recorded>> {
        use resource::Column as C;
        let mut query = resource::Entity::find()
            .select_only()
            .columns([
                C::Driver,
                C::Identity,
                C::Name,
                C::Organization,
                C::TypeId,
                C::State,
                C::Inputs,
                C::SealedInputs,
            ])
            .filter(C::Identity.ne(""))
            .order_by_asc(C::Name);
        if let Some(organization) = organization {
            query = query.filter(C::Organization.eq(organization));
        }
        query.into_model().all(self.store.read()).await.map_err(db)
    }

    /// What operations that are not done are working on, those included that wait for an operator.
    pub async fn under_way_unscoped(&self) -> Result<UnderWay> {
        let going_on = operation::Entity::find()
            .select_only()
            .column(operation::Column::Id)
            .filter(operation::Column::State.is_not_in(done_states()));
        let rows: Vec<(String, String)> = step::Entity::find()
            .select_only()
            .columns([step::Column::IdempotencyKey, step::Column::Resource])
            .filter(step::Column::Operation.in_subquery(QuerySelect::query(&mut going_on.clone()).to_owned()))
            .into_tuple()
            .all(self.store.read())
            .await
            .map_err(db)?;
        let (keys, resources) = rows.into_iter().unzip();
        Ok(UnderWay { keys, resources })
    }
}
