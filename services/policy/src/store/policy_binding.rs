//! The table of policy bindings.

use pavior_auth::Permit;
use pavior_resource::{Stored, Table};
use pavior_resource::{crud::LOOK_FOR, row, stored};
use pavior_store::StoreError;
use pavior_store::filter::FieldMap;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use super::column::{filter_values, from_json, last, to_json};
use super::entity::policy_binding as row;
use crate::domain::policy::policy_name;
use crate::domain::policy_binding::PolicyBindingFields;

impl Table for PolicyBindingFields {
    type Entity = row::Entity;

    fn write(stored: &Stored<Self>) -> row::Model {
        let Self { policy, projects, environment_class_ids, mode, text_revision } = &stored.fields;
        row!(
            stored,
            row::Model {
                policy: policy_name(&stored.organization, policy),
                projects: to_json(projects),
                environment_class_ids: to_json(environment_class_ids),
                mode: (*mode).into(),
                text_revision: *text_revision,
            }
        )
    }

    fn read(row: row::Model) -> Result<Stored<Self>, StoreError> {
        stored!(
            row,
            row::Model { policy, projects, environment_class_ids, mode, text_revision },
            Self {
                policy: last(&policy),
                projects: from_json(&projects, "projects")?,
                environment_class_ids: from_json(&environment_class_ids, "environment_class_ids")?,
                mode: mode.into(),
                text_revision,
            }
        )
    }

    fn filter_fields(fields: FieldMap) -> FieldMap {
        let modes = filter_values::<row::Mode>("MODE_");
        let fields = fields.text("policy", row::Column::Policy);
        fields.enumeration("mode", row::Column::Mode, modes)
    }
}

/// Ids of bindings that put a policy into force.
pub(crate) async fn policy_bindings_of<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    policy: &str,
) -> Result<Vec<String>, StoreError> {
    use row::Column as C;
    let name = policy_name(permit.organization(), policy);
    let rows =
        row::Entity::find().filter(C::Organization.eq(permit.organization())).filter(C::Policy.eq(name));
    let rows = rows.order_by_asc(C::Id).limit(LOOK_FOR).all(db).await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}
