//! The table of policies.

use pavior_resource::{Stored, Table, stored_time};
use pavior_store::filter::FieldMap;
use pavior_store::{StoreError, micros};

use super::column::filter_values;
use super::entity::policy as row;
use crate::domain::policy::PolicyFields;

impl Table for PolicyFields {
    type Entity = row::Entity;

    fn write(stored: &Stored<Self>) -> row::Model {
        let Stored { uid, organization, id, revision, create_time, update_time, fields } = stored;
        let Self { display_name, description, kind, source, digest, text_revision } = fields;
        row::Model {
            uid: *uid,
            organization: organization.clone(),
            id: id.clone(),
            revision: *revision,
            create_time: micros(*create_time),
            update_time: micros(*update_time),
            display_name: display_name.clone(),
            description: description.clone(),
            policy_type: (*kind).into(),
            source: source.clone(),
            digest: digest.clone(),
            text_revision: *text_revision,
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
            policy_type,
            source,
            digest,
            text_revision,
        } = row;
        let kind = policy_type.into();
        let fields = Self { display_name, description, kind, source, digest, text_revision };
        let (create_time, update_time) = (stored_time(create_time)?, stored_time(update_time)?);
        Ok(Stored { uid, organization, id, revision, create_time, update_time, fields })
    }

    fn filter_fields(fields: FieldMap) -> FieldMap {
        let types = filter_values::<row::PolicyType>("POLICY_TYPE_");
        let fields = fields.text("display_name", row::Column::DisplayName);
        fields.enumeration("policy_type", row::Column::PolicyType, types).global(["display_name"])
    }
}
