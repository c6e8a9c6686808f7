//! Golden paths.

use pavior_resource::{Table, row, stored};
use pavior_store::StoreError;
use pavior_store::filter::FieldMap;

use super::corrupt;
use super::row::template;
use crate::domain::template::{channels_from_json, channels_to_json};
use crate::domain::{Stored, TemplateFields};

impl Table for TemplateFields {
    type Entity = template::Entity;

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields.text("display_name", template::Column::DisplayName).global(["display_name"])
    }

    fn read(row: template::Model) -> Result<Stored<Self>, StoreError> {
        stored!(row, template::Model { display_name, description, channels, latest_version }, {
            let channels = channels_from_json(&channels).ok_or_else(|| corrupt("channels of a template"))?;
            TemplateFields { display_name, description, channels, latest_version }
        })
    }

    fn write(stored: &Stored<Self>) -> template::Model {
        let TemplateFields { display_name, description, channels, latest_version } = stored.fields.clone();
        row!(
            stored,
            template::Model {
                display_name,
                description,
                channels: channels_to_json(&channels),
                latest_version,
            }
        )
    }
}
