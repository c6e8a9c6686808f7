//! Organizations.

use pavior_auth::Permit;
use pavior_core::filter::Filter;
use pavior_core::principal::INSTALLATION;
use pavior_store::StoreError;
use pavior_store::filter::FieldMap;
use sea_orm::sea_query::LockType;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait as _, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};

use super::Db;
use super::row::organization;
use crate::domain::{KindFields, OrganizationFields, Stored};
use pavior_resource::{ListError, ListQuery, Listing, Table, confined, row, stored};

impl Table for OrganizationFields {
    type Entity = organization::Entity;

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields
    }

    fn read(row: organization::Model) -> Result<Stored<Self>, StoreError> {
        stored!(
            row,
            organization::Model { display_name, directory_revision: _ },
            OrganizationFields { display_name }
        )
    }

    fn write(stored: &Stored<Self>) -> organization::Model {
        row!(
            stored,
            organization::Model { display_name: stored.fields.display_name.clone(), directory_revision: 1 }
        )
    }
}

impl<C: ConnectionTrait> Db<'_, C> {
    /// Locks the organization until the transaction ends, so that what is checked here still holds when it commits. False
    /// when the organization does not exist.
    pub(crate) async fn lock_organization(&self, permit: &Permit) -> Result<bool, StoreError> {
        let mut select = organization::Entity::find()
            .select_only()
            .column(organization::Column::Revision)
            .filter(organization::Column::Id.eq(permit.organization()));
        // SQLite has a single writer, so there is nothing to lock.
        if self.backend() == DbBackend::Postgres {
            select = select.lock(LockType::Update);
        }
        let found: Option<i64> = select.into_tuple().one(self.rows.connection()).await?;
        Ok(found.is_some())
    }

    /// Makes an organization with its first kinds. The permit is the installation's.
    pub(crate) async fn insert_organization(
        &self,
        permit: &Permit,
        organization: &Stored<OrganizationFields>,
        kinds: &[Stored<KindFields>],
    ) -> Result<(), StoreError> {
        confined(permit, INSTALLATION)?;
        self.rows.insert_unscoped(organization).await?;
        for kind in kinds {
            confined(permit, INSTALLATION)?;
            self.rows.insert_unscoped(kind).await?;
        }
        Ok(())
    }

    /// Organizations of the installation: all, or `only` one if it is there. The permit is the installation's.
    pub(crate) async fn organizations_page(
        &self,
        permit: &Permit,
        only: Option<&str>,
        query: &ListQuery,
    ) -> Result<Listing<OrganizationFields>, ListError> {
        confined(permit, INSTALLATION)?;
        debug_assert_eq!(query.filter, Filter::And(Vec::new()));
        let mut select = organization::Entity::find();
        if let Some(only) = only {
            select = select.filter(organization::Column::Id.eq(only));
        }
        let connection = self.rows.connection();
        let total = match query.count {
            true => Some(select.clone().count(connection).await.map_err(StoreError::from)?),
            false => None,
        };
        if let Some(after) = &query.after {
            let id = after.get(0).and_then(serde_json::Value::as_str);
            let id = id.ok_or(ListError::Position(pavior_store::keyset::PositionError))?;
            select = select.filter(organization::Column::Id.gt(id));
        }
        let select = select.order_by_asc(organization::Column::Id).limit(query.limit);
        let rows = select.all(connection).await.map_err(StoreError::from)?;
        let rows = rows.into_iter().map(OrganizationFields::read).collect::<Result<Vec<_>, _>>()?;
        let positions = rows.iter().map(|row| serde_json::json!([row.id])).collect();
        Ok(Listing { rows, positions, total })
    }
}
