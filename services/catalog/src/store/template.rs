//! Golden paths.

use pavior_resource::Table;
use pavior_store::filter::FieldMap;
use pavior_store::{StoreError, micros};

use super::row::template;
use super::{corrupt, time};
use crate::domain::template::{channels_from_json, channels_to_json};
use crate::domain::{Stored, TemplateFields};

impl Table for TemplateFields {
    type Entity = template::Entity;

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields.text("display_name", template::Column::DisplayName).global(["display_name"])
    }

    fn read(row: template::Model) -> Result<Stored<Self>, StoreError> {
        let template::Model {
            uid,
            organization,
            id,
            revision,
            create_time,
            update_time,
            display_name,
            description,
            channels,
            latest_version,
        } = row;
        let channels = channels_from_json(&channels).ok_or_else(|| corrupt("channels of a template"))?;
        Ok(Stored {
            organization,
            id,
            uid,
            revision,
            create_time: time(create_time)?,
            update_time: time(update_time)?,
            fields: TemplateFields { display_name, description, channels, latest_version },
        })
    }

    fn write(stored: &Stored<Self>) -> template::Model {
        let Stored { organization, id, uid, revision, create_time, update_time, fields } = stored.clone();
        let TemplateFields { display_name, description, channels, latest_version } = fields;
        template::Model {
            uid,
            organization,
            id,
            revision,
            create_time: micros(create_time),
            update_time: micros(update_time),
            display_name,
            description,
            channels: channels_to_json(&channels),
            latest_version,
        }
    }
}
