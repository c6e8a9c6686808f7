//! The table of policies.

use pavior_resource::{Stored, Table, row, stored};
use pavior_store::StoreError;
use pavior_store::filter::FieldMap;

use super::column::filter_values;
use super::entity::policy as row;
use crate::domain::policy::PolicyFields;

impl Table for PolicyFields {
    type Entity = row::Entity;

    fn write(stored: &Stored<Self>) -> row::Model {
        let Self { display_name, description, kind, source, digest, text_revision } = &stored.fields;
        row!(
            stored,
            row::Model {
                display_name: display_name.clone(),
                description: description.clone(),
                policy_type: (*kind).into(),
                source: source.clone(),
                digest: digest.clone(),
                text_revision: *text_revision,
            }
        )
    }

    fn read(row: row::Model) -> Result<Stored<Self>, StoreError> {
        stored!(row, row::Model { display_name, description, policy_type, source, digest, text_revision }, {
            let kind = policy_type.into();
            Self { display_name, description, kind, source, digest, text_revision }
        })
    }

    fn filter_fields(fields: FieldMap) -> FieldMap {
        let types = filter_values::<row::PolicyType>("POLICY_TYPE_");
        let fields = fields.text("display_name", row::Column::DisplayName);
        fields.enumeration("policy_type", row::Column::PolicyType, types).global(["display_name"])
    }
}
