//! Users.

use pavior_store::StoreError;
use pavior_store::filter::FieldMap;

use super::row::user;
use crate::domain::{Stored, UserFields};
use pavior_resource::{Table, row, stored};

impl Table for UserFields {
    type Entity = user::Entity;

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields
            .text("display_name", user::Column::DisplayName)
            .text("email", user::Column::Email)
            .global(["display_name", "email"])
    }

    fn read(row: user::Model) -> Result<Stored<Self>, StoreError> {
        stored!(row, user::Model { display_name, email }, UserFields { display_name, email })
    }

    fn write(stored: &Stored<Self>) -> user::Model {
        let UserFields { display_name, email } = stored.fields.clone();
        row!(stored, user::Model { display_name, email })
    }
}
