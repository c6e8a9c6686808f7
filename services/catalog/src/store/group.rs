//! Groups.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_store::StoreError;
use pavior_store::filter::FieldMap;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use super::Db;
use super::row::group;
use crate::domain::{GroupFields, Stored};
use pavior_resource::{Table, row, stored};

impl Table for GroupFields {
    type Entity = group::Entity;

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields.text("display_name", group::Column::DisplayName).global(["display_name"])
    }

    fn read(row: group::Model) -> Result<Stored<Self>, StoreError> {
        stored!(
            row,
            group::Model { display_name, description, parent },
            GroupFields { display_name, description, parent }
        )
    }

    fn write(stored: &Stored<Self>) -> group::Model {
        let GroupFields { display_name, description, parent } = stored.fields.clone();
        row!(stored, group::Model { display_name, description, parent })
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
