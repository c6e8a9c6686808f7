//! Users.

use pavior_store::filter::FieldMap;
use pavior_store::{StoreError, micros};

use super::row::user;
use super::time;
use crate::domain::{Stored, UserFields};
use pavior_resource::Table;

impl Table for UserFields {
    type Entity = user::Entity;

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields
            .text("display_name", user::Column::DisplayName)
            .text("email", user::Column::Email)
            .global(["display_name", "email"])
    }

    fn read(row: user::Model) -> Result<Stored<Self>, StoreError> {
        let user::Model { uid, organization, id, revision, create_time, update_time, display_name, email } =
            row;
        Ok(Stored {
            organization,
            id,
            uid,
            revision,
            create_time: time(create_time)?,
            update_time: time(update_time)?,
            fields: UserFields { display_name, email },
        })
    }

    fn write(stored: &Stored<Self>) -> user::Model {
        let Stored { organization, id, uid, revision, create_time, update_time, fields } = stored.clone();
        let UserFields { display_name, email } = fields;
        user::Model {
            uid,
            organization,
            id,
            revision,
            create_time: micros(create_time),
            update_time: micros(update_time),
            display_name,
            email,
        }
    }
}
