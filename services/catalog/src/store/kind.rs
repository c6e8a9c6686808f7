//! Kinds.

use pavior_store::StoreError;
use pavior_store::filter::FieldMap;

use super::row::kind;
use super::{corrupt, schema};
use crate::domain::kind::{rules_from_json, rules_to_json};
use crate::domain::{KindFields, Stored};
use pavior_resource::{Table, row, stored};

impl Table for KindFields {
    type Entity = kind::Entity;

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields.text("display_name", kind::Column::DisplayName).global(["display_name"])
    }

    fn read(row: kind::Model) -> Result<Stored<Self>, StoreError> {
        stored!(row, kind::Model { display_name, description, spec_schema, relation_rules, built_in }, {
            let relation_rules = rules_from_json(&relation_rules).ok_or_else(|| corrupt("relation rules"))?;
            let spec_schema = schema(&spec_schema, "spec schema")?;
            KindFields { display_name, description, spec_schema, relation_rules, built_in }
        })
    }

    fn write(stored: &Stored<Self>) -> kind::Model {
        let KindFields { display_name, description, spec_schema, relation_rules, built_in } =
            stored.fields.clone();
        row!(
            stored,
            kind::Model {
                display_name,
                description,
                spec_schema: spec_schema.text(),
                relation_rules: rules_to_json(&relation_rules),
                built_in,
            }
        )
    }
}
