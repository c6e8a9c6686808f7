//! The table of roles.

use pavior_resource::{Stored, Table, row, stored};
use pavior_store::StoreError;
use pavior_store::filter::FieldMap;

use super::column::{corrupt, from_json, to_json};
use super::entity::role as row;
use crate::domain::action::Pattern;
use crate::domain::role::RoleFields;

impl Table for RoleFields {
    type Entity = row::Entity;

    fn write(stored: &Stored<Self>) -> row::Model {
        let Self { display_name, description, actions } = &stored.fields;
        let actions: Vec<String> = actions.iter().map(ToString::to_string).collect();
        row!(
            stored,
            row::Model {
                display_name: display_name.clone(),
                description: description.clone(),
                actions: to_json(&actions),
            }
        )
    }

    fn read(row: row::Model) -> Result<Stored<Self>, StoreError> {
        stored!(row, row::Model { display_name, description, actions }, {
            let actions: Vec<String> = from_json(&actions, "actions")?;
            let actions = actions.iter().map(|text| Pattern::parse(text).map_err(|_| corrupt("actions")));
            Self { display_name, description, actions: actions.collect::<Result<_, _>>()? }
        })
    }

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields.text("display_name", row::Column::DisplayName).global(["display_name"])
    }
}
