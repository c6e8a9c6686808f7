//! The table of roles.

use pavior_resource::{Stored, Table, stored_time};
use pavior_store::filter::FieldMap;
use pavior_store::{StoreError, micros};

use super::column::{corrupt, from_json, to_json};
use super::entity::role as row;
use crate::domain::action::Pattern;
use crate::domain::role::RoleFields;

impl Table for RoleFields {
    type Entity = row::Entity;

    fn write(stored: &Stored<Self>) -> row::Model {
        let Stored { uid, organization, id, revision, create_time, update_time, fields } = stored;
        let Self { display_name, description, actions } = fields;
        let actions: Vec<String> = actions.iter().map(ToString::to_string).collect();
        row::Model {
            uid: *uid,
            organization: organization.clone(),
            id: id.clone(),
            revision: *revision,
            create_time: micros(*create_time),
            update_time: micros(*update_time),
            display_name: display_name.clone(),
            description: description.clone(),
            actions: to_json(&actions),
        }
    }

    fn read(row: row::Model) -> Result<Stored<Self>, StoreError> {
        let row::Model {
            uid,
            organization,
            id,
            revision,
            create_time,
            update_time,
            display_name,
            description,
            actions,
        } = row;
        let actions: Vec<String> = from_json(&actions, "actions")?;
        let actions = actions.iter().map(|text| Pattern::parse(text).map_err(|_| corrupt("actions")));
        let fields = Self { display_name, description, actions: actions.collect::<Result<_, _>>()? };
        let (create_time, update_time) = (stored_time(create_time)?, stored_time(update_time)?);
        Ok(Stored { uid, organization, id, revision, create_time, update_time, fields })
    }

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields.text("display_name", row::Column::DisplayName).global(["display_name"])
    }
}
