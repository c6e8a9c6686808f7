//! Versions of golden paths. There is no query that changes or deletes one.

use std::collections::BTreeSet;

use pavior_auth::Permit;
use pavior_resource::{Key, Table, confined, row, stored};
use pavior_store::StoreError;
use pavior_store::filter::FieldMap;
use sea_orm::{ActiveValue::Set, ConnectionTrait, EntityTrait as _};

use super::row::json::TextList;
use super::row::{template_type, template_version};
use super::{Db, schema};
use crate::domain::{Stored, VersionFields, version};

impl Table for VersionFields {
    type Entity = template_version::Entity;
    const DEFAULT_ORDER: &'static [(Key, bool)] = &[(Key::Column("sort_key"), true)];
    const ORDER: &'static [(&'static str, &'static [Key])] =
        &[("version", &[Key::Column("sort_key")]), ("create_time", &[Key::CreateTime])];

    const PARENT: Option<&'static str> = Some("template");

    fn parent(&self) -> &str {
        &self.template
    }

    fn key_value(stored: &Stored<Self>, _column: &str) -> String {
        version::sort_key(&stored.id).unwrap_or_default()
    }

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields
    }

    fn read(row: template_version::Model) -> Result<Stored<Self>, StoreError> {
        stored!(
            row,
            template_version::Model {
                template,
                sort_key: _,
                document,
                digest,
                parameter_schema,
                environment_classes,
                content
            },
            {
                let parameter_schema = schema(&parameter_schema, "parameter schema")?;
                VersionFields {
                    template,
                    document,
                    digest,
                    parameter_schema,
                    environment_classes: environment_classes.0,
                    content,
                }
            }
        )
    }

    fn write(stored: &Stored<Self>) -> template_version::Model {
        let VersionFields { template, document, digest, parameter_schema, environment_classes, content } =
            stored.fields.clone();
        row!(
            stored,
            template_version::Model {
                sort_key: version::sort_key(&stored.id).unwrap_or_default(),
                template,
                document,
                digest,
                parameter_schema: parameter_schema.text(),
                environment_classes: TextList(environment_classes),
                content,
            }
        )
    }
}

impl<C: ConnectionTrait> Db<'_, C> {
    /// Records which resource types a version uses.
    pub(crate) async fn insert_version_types(
        &self,
        permit: &Permit,
        version: &Stored<VersionFields>,
        types: &BTreeSet<String>,
    ) -> Result<(), StoreError> {
        confined(permit, &version.organization)?;
        if types.is_empty() {
            return Ok(());
        }
        let rows = types.iter().map(|resource_type| template_type::ActiveModel {
            version: Set(version.uid),
            resource_type: Set(resource_type.clone()),
            organization: Set(version.organization.clone()),
            template: Set(version.fields.template.clone()),
            version_id: Set(version.id.clone()),
        });
        template_type::Entity::insert_many(rows).exec_without_returning(self.rows.connection()).await?;
        Ok(())
    }
}
