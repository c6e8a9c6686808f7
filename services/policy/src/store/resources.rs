//! Queries that are the same for every kind of resource.

use pavior_auth::Permit;
use pavior_core::filter::Filter;
use pavior_store::filter::{FieldMap, FilterError, condition};
use pavior_store::keyset::{Keyset, PositionError, position};
use pavior_store::{StoreError, micros};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DbBackend, EntityTrait, PaginatorTrait, QueryFilter as _,
    QuerySelect as _, Select,
};
use serde_json::{Value as Json, json};

use super::tables::Table;
use crate::domain::record::Stored;

/// Which resources to list.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    /// What they must be like.
    pub(crate) filter: Filter,
    /// How to sort them; by name when empty.
    pub(crate) order: Vec<(Vec<String>, bool)>,
}

/// Why a list cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    /// The filter names what is not there.
    #[error(transparent)]
    Filter(FilterError),
    /// The order names what is not there.
    #[error(transparent)]
    Order(FilterError),
    /// The page token is for another order.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Listing {
    /// The condition and the order as SQL. `order_fields` are those that can be sorted by.
    pub(super) fn compile(
        &self,
        filter_fields: &FieldMap,
        order_fields: &FieldMap,
        uid: impl sea_orm::sea_query::IntoColumnRef,
    ) -> Result<(Condition, Keyset), ListError> {
        let condition = condition(&self.filter, filter_fields).map_err(ListError::Filter)?;
        let keyset = order_fields.keyset(&self.order_or_name(), uid).map_err(ListError::Order)?;
        Ok((condition, keyset))
    }

    fn order_or_name(&self) -> Vec<(Vec<String>, bool)> {
        if self.order.is_empty() { vec![(vec!["name".to_owned()], false)] } else { self.order.clone() }
    }

    /// Where a resource stands in the order, for a page token.
    pub(crate) fn position<T>(&self, stored: &Stored<T>) -> Json {
        let key = |(path, _): &(Vec<String>, bool)| match path.first().map(String::as_str) {
            Some("create_time") => json!(micros(stored.create_time)),
            _ => json!(stored.id),
        };
        let mut keys: Vec<Json> = self.order_or_name().iter().map(key).collect();
        keys.push(position::uuid(stored.uid));
        Json::Array(keys)
    }
}

fn scoped<T: Table>(permit: &Permit) -> Select<T::Entity> {
    let [_, organization, ..] = T::columns();
    T::Entity::find().filter(organization.eq(permit.organization()))
}

/// The resource of an id.
pub(crate) async fn by_id<T: Table>(
    db: &impl ConnectionTrait,
    permit: &Permit,
    id: &str,
) -> Result<Option<Stored<T>>, StoreError> {
    let [_, _, id_column, ..] = T::columns();
    let row = scoped::<T>(permit).filter(id_column.eq(id)).one(db).await?;
    row.map(T::from_row).transpose()
}

/// All resources of the organization.
pub(crate) async fn all<T: Table>(
    db: &impl ConnectionTrait,
    permit: &Permit,
) -> Result<Vec<Stored<T>>, StoreError> {
    let rows = scoped::<T>(permit).all(db).await?;
    let mut all = rows.into_iter().map(T::from_row).collect::<Result<Vec<_>, _>>()?;
    all.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(all)
}

/// How many resources the organization has.
pub(crate) async fn count<T: Table>(db: &impl ConnectionTrait, permit: &Permit) -> Result<u64, StoreError> {
    Ok(scoped::<T>(permit).count(db).await?)
}

/// A page of resources, at most `limit` after a position.
pub(crate) async fn page<T: Table>(
    db: &impl ConnectionTrait,
    backend: DbBackend,
    permit: &Permit,
    listing: &Listing,
    after: Option<&Json>,
    limit: u64,
) -> Result<Vec<Stored<T>>, ListError> {
    let [uid, _, id, _, create_time] = T::columns();
    let filter_fields = T::fields(FieldMap::new(backend)).timestamp_micros("create_time", create_time);
    let order_fields = FieldMap::new(backend).text("name", id).timestamp_micros("create_time", create_time);
    let (condition, keyset) = listing.compile(&filter_fields, &order_fields, uid)?;
    let mut select = keyset.order(scoped::<T>(permit).filter(condition)).limit(limit);
    if let Some(after) = after {
        select = select.filter(keyset.after(after)?);
    }
    let rows = select.all(db).await.map_err(StoreError::from)?;
    Ok(rows.into_iter().map(T::from_row).collect::<Result<_, _>>()?)
}

/// Adds a resource.
pub(crate) async fn insert<T: Table>(
    tx: &impl ConnectionTrait,
    permit: &Permit,
    stored: &Stored<T>,
) -> Result<(), StoreError> {
    belongs(permit, stored)?;
    T::Entity::insert(T::to_row(stored)?).exec_without_returning(tx).await?;
    Ok(())
}

/// Writes a resource over the revision before it. False when that is not the current one.
pub(crate) async fn update<T: Table>(
    tx: &impl ConnectionTrait,
    permit: &Permit,
    stored: &Stored<T>,
) -> Result<bool, StoreError> {
    belongs(permit, stored)?;
    let [uid, organization, _, revision, _] = T::columns();
    let result = T::Entity::update_many()
        .set(T::to_row(stored)?)
        .filter(uid.eq(stored.uid))
        .filter(organization.eq(permit.organization()))
        .filter(revision.eq(stored.revision - 1))
        .exec(tx)
        .await?;
    Ok(result.rows_affected == 1)
}

/// Removes a resource.
pub(crate) async fn delete<T: Table>(
    tx: &impl ConnectionTrait,
    permit: &Permit,
    stored: &Stored<T>,
) -> Result<bool, StoreError> {
    belongs(permit, stored)?;
    let [uid, organization, ..] = T::columns();
    let mine =
        T::Entity::delete_many().filter(uid.eq(stored.uid)).filter(organization.eq(permit.organization()));
    Ok(mine.exec(tx).await?.rows_affected == 1)
}

/// A row of another organization than the permit's is never written.
fn belongs<T>(permit: &Permit, stored: &Stored<T>) -> Result<(), StoreError> {
    if stored.organization == permit.organization() {
        Ok(())
    } else {
        Err(StoreError::Corrupt("a resource of another organization".to_owned()))
    }
}
