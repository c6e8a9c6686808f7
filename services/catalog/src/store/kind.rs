//! Kinds.

use pavior_store::filter::FieldMap;
use pavior_store::{StoreError, micros};

use super::row::kind;
use super::{corrupt, schema, time};
use crate::domain::kind::{rules_from_json, rules_to_json};
use crate::domain::{KindFields, Stored};
use pavior_resource::Table;

impl Table for KindFields {
    type Entity = kind::Entity;

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields.text("display_name", kind::Column::DisplayName).global(["display_name"])
    }

    fn read(row: kind::Model) -> Result<Stored<Self>, StoreError> {
        let kind::Model {
            uid,
            organization,
            id,
            revision,
            create_time,
            update_time,
            display_name,
            description,
            spec_schema,
            relation_rules,
            built_in,
        } = row;
        let relation_rules = rules_from_json(&relation_rules).ok_or_else(|| corrupt("relation rules"))?;
        let spec_schema = schema(&spec_schema, "spec schema")?;
        Ok(Stored {
            organization,
            id,
            uid,
            revision,
            create_time: time(create_time)?,
            update_time: time(update_time)?,
            fields: KindFields { display_name, description, spec_schema, relation_rules, built_in },
        })
    }

    fn write(stored: &Stored<Self>) -> kind::Model {
        let Stored { organization, id, uid, revision, create_time, update_time, fields } = stored.clone();
        let KindFields { display_name, description, spec_schema, relation_rules, built_in } = fields;
        kind::Model {
            uid,
            organization,
            id,
            revision,
            create_time: micros(create_time),
            update_time: micros(update_time),
            display_name,
            description,
            spec_schema: spec_schema.text(),
            relation_rules: rules_to_json(&relation_rules),
            built_in,
        }
    }
}
