//! Groups.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_store::filter::FieldMap;
use pavior_store::{StoreError, micros};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use super::row::group;
use super::{Db, time};
use crate::domain::{GroupFields, Stored};
use pavior_resource::Table;

impl Table for GroupFields {
    type Entity = group::Entity;

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields.text("display_name", group::Column::DisplayName).global(["display_name"])
    }

    fn read(row: group::Model) -> Result<Stored<Self>, StoreError> {
        let group::Model {
            uid,
            organization,
            id,
            revision,
            create_time,
            update_time,
            display_name,
            description,
            parent,
        } = row;
        Ok(Stored {
            organization,
            id,
            uid,
            revision,
            create_time: time(create_time)?,
            update_time: time(update_time)?,
            fields: GroupFields { display_name, description, parent },
        })
    }

    fn write(stored: &Stored<Self>) -> group::Model {
        let Stored { organization, id, uid, revision, create_time, update_time, fields } = stored.clone();
        let GroupFields { display_name, description, parent } = fields;
        group::Model {
            uid,
            organization,
            id,
            revision,
            create_time: micros(create_time),
            update_time: micros(update_time),
            display_name,
            description,
            parent,
        }
    }
}

impl<C: ConnectionTrait> Db<'_, C> {
    /// The parent of each group, by id.
    pub(crate) async fn group_parents(
        &self,
        permit: &Permit,
    ) -> Result<BTreeMap<String, Option<String>>, StoreError> {
        let rows: Vec<(String, Option<String>)> = group::Entity::find()
            .select_only()
            .column(group::Column::Id)
            .column(group::Column::Parent)
            .filter(group::Column::Organization.eq(permit.organization()))
            .into_tuple()
            .all(self.rows.connection())
            .await?;
        Ok(rows.into_iter().collect())
    }

    /// The first groups below a group, by id.
    pub(crate) async fn child_groups(
        &self,
        permit: &Permit,
        id: &str,
        limit: u64,
    ) -> Result<Vec<String>, StoreError> {
        let select = group::Entity::find()
            .select_only()
            .column(group::Column::Id)
            .filter(group::Column::Organization.eq(permit.organization()))
            .filter(group::Column::Parent.eq(id))
            .order_by_asc(group::Column::Id)
            .limit(limit);
        Ok(select.into_tuple().all(self.rows.connection()).await?)
    }
}
