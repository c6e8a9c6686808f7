//! Resource definitions.

use pavior_auth::Permit;
use pavior_core::money::Money;
use pavior_store::StoreError;
use pavior_store::filter::FieldMap;
use sea_orm::{ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _};

use super::row::resource_definition;
use super::{CHUNK, Db, corrupt};
use crate::domain::resource_definition::Criteria;
use crate::domain::{ResourceDefinitionFields, Stored};
use pavior_resource::{Table, row, stored};

impl Table for ResourceDefinitionFields {
    type Entity = resource_definition::Entity;

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields
            .text("resource_type", resource_definition::Column::ResourceType)
            .text("driver_id", resource_definition::Column::Driver)
            .text("display_name", resource_definition::Column::DisplayName)
            .global(["display_name", "driver_id"])
    }

    fn read(row: resource_definition::Model) -> Result<Stored<Self>, StoreError> {
        stored!(
            row,
            resource_definition::Model {
                display_name,
                description,
                resource_type,
                driver,
                driver_inputs,
                match_criteria,
                monthly_cost
            },
            {
                let resource_type = resource_type.rsplit('/').next().unwrap_or_default().to_owned();
                let match_criteria = match_criteria.0.into_iter().map(read_criteria).collect();
                let monthly_cost = monthly_cost.map(|cost| cost.parse()).transpose();
                let monthly_cost = monthly_cost.map_err(|_| corrupt("monthly cost"))?;
                ResourceDefinitionFields {
                    display_name,
                    description,
                    resource_type,
                    driver,
                    driver_inputs,
                    match_criteria,
                    monthly_cost,
                }
            }
        )
    }

    fn write(stored: &Stored<Self>) -> resource_definition::Model {
        let ResourceDefinitionFields {
            display_name,
            description,
            resource_type,
            driver,
            driver_inputs,
            match_criteria,
            monthly_cost,
        } = stored.fields.clone();
        row!(
            stored,
            resource_definition::Model {
                resource_type: format!("organizations/{}/resourceTypes/{resource_type}", stored.organization),
                display_name,
                description,
                driver,
                driver_inputs,
                match_criteria: resource_definition::MatchCriteria(
                    match_criteria.into_iter().map(write_criteria).collect(),
                ),
                monthly_cost: monthly_cost.as_ref().map(Money::to_string),
            }
        )
    }
}

fn read_criteria(kept: resource_definition::Criteria) -> Criteria {
    let resource_definition::Criteria { resource_id, project, environment_class_id, project_labels } = kept;
    Criteria { resource_id, project, environment_class: environment_class_id, labels: project_labels }
}

fn write_criteria(criteria: Criteria) -> resource_definition::Criteria {
    let Criteria { resource_id, project, environment_class, labels } = criteria;
    let (environment_class_id, project_labels) = (environment_class, labels);
    resource_definition::Criteria { resource_id, project, environment_class_id, project_labels }
}

impl<C: ConnectionTrait> Db<'_, C> {
    /// All definitions of some types, which are given by id, in the order of their ids.
    pub(crate) async fn definitions_of(
        &self,
        permit: &Permit,
        types: &[String],
    ) -> Result<Vec<Stored<ResourceDefinitionFields>>, StoreError> {
        let organization = permit.organization();
        let names: Vec<String> =
            types.iter().map(|id| format!("organizations/{organization}/resourceTypes/{id}")).collect();
        let mut found = Vec::new();
        for chunk in names.chunks(CHUNK) {
            let rows = resource_definition::Entity::find()
                .filter(resource_definition::Column::Organization.eq(organization))
                .filter(resource_definition::Column::ResourceType.is_in(chunk))
                .order_by_asc(resource_definition::Column::Id)
                .all(self.rows.connection())
                .await?;
            for row in rows {
                found.push(ResourceDefinitionFields::read(row)?);
            }
        }
        Ok(found)
    }
}
