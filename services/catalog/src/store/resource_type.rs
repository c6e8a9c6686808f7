//! Resource types.

use pavior_auth::Permit;
use pavior_store::StoreError;
use pavior_store::filter::FieldMap;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use super::row::json::TextList;
use super::row::{resource_definition, resource_type, template_type};
use super::{Db, schema};
use crate::domain::{Fields as _, ResourceTypeFields, Stored};
use pavior_resource::{Table, row, stored};

impl Table for ResourceTypeFields {
    type Entity = resource_type::Entity;

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields.text("display_name", resource_type::Column::DisplayName).global(["display_name"])
    }

    fn read(row: resource_type::Model) -> Result<Stored<Self>, StoreError> {
        stored!(
            row,
            resource_type::Model { display_name, description, input_schema, output_schema, secret_outputs },
            {
                let input_schema = schema(&input_schema, "input schema")?;
                let output_schema = schema(&output_schema, "output schema")?;
                ResourceTypeFields {
                    display_name,
                    description,
                    input_schema,
                    output_schema,
                    secret_outputs: secret_outputs.0,
                }
            }
        )
    }

    fn write(stored: &Stored<Self>) -> resource_type::Model {
        let ResourceTypeFields { display_name, description, input_schema, output_schema, secret_outputs } =
            stored.fields.clone();
        row!(
            stored,
            resource_type::Model {
                display_name,
                description,
                input_schema: input_schema.text(),
                output_schema: output_schema.text(),
                secret_outputs: TextList(secret_outputs),
            }
        )
    }
}

impl<C: ConnectionTrait> Db<'_, C> {
    /// The names of the first definitions and template versions that use a type.
    pub(crate) async fn users_of_type(
        &self,
        permit: &Permit,
        resource_type: &Stored<ResourceTypeFields>,
        limit: u64,
    ) -> Result<Vec<String>, StoreError> {
        let organization = permit.organization();
        let definitions: Vec<String> = resource_definition::Entity::find()
            .select_only()
            .column(resource_definition::Column::Id)
            .filter(resource_definition::Column::Organization.eq(organization))
            .filter(
                resource_definition::Column::ResourceType
                    .eq(resource_type.fields.name(organization, &resource_type.id)),
            )
            .order_by_asc(resource_definition::Column::Id)
            .limit(limit)
            .into_tuple()
            .all(self.rows.connection())
            .await?;
        let versions: Vec<(String, String)> = template_type::Entity::find()
            .select_only()
            .column(template_type::Column::Template)
            .column(template_type::Column::VersionId)
            .filter(template_type::Column::Organization.eq(organization))
            .filter(template_type::Column::ResourceType.eq(resource_type.id.as_str()))
            .limit(limit)
            .into_tuple()
            .all(self.rows.connection())
            .await?;
        let definitions = definitions
            .into_iter()
            .map(|id| format!("organizations/{organization}/resourceDefinitions/{id}"));
        let versions = versions.into_iter().map(|(template, version)| {
            format!("organizations/{organization}/templates/{template}/versions/{version}")
        });
        Ok(definitions.chain(versions).collect())
    }
}
