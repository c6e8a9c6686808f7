//! Lists: filtered, ordered, and in pages.

use pavior_auth::Permit;
use pavior_core::filter::{Filter, order_by};
use pavior_core::resource::Stored;
use pavior_store::filter::FilterError;
use pavior_store::keyset::{KeyKind, Keyset, PositionError};
use pavior_store::{StoreError, filter};
use sea_orm::sea_query::Expr;
use sea_orm::{ConnectionTrait, PaginatorTrait as _, QueryFilter as _, QuerySelect as _, Select};
use serde_json::{Value as Json, json};

use super::deleted::{Shown, with_deleted};
use super::{CREATE_TIME, ID, Key, Model, Rows, Table, UID, UPDATE_TIME, below};
use crate::Error;

/// What to list.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// The id of the resource above, other than the organization; `None` for all.
    pub parent: Option<String>,
    /// What they must be like.
    pub filter: Filter,
    /// Fields with whether they are descending.
    pub order: Vec<(Vec<String>, bool)>,
    /// At most so many rows.
    pub limit: u64,
    /// The position of the last row of the page before.
    pub after: Option<Json>,
    /// Whether all rows are counted, those of other pages included.
    pub count: bool,
    /// With what is deleted and still kept.
    pub deleted: bool,
}

impl ListQuery {
    /// From the arguments of a list.
    ///
    /// # Errors
    /// A filter or an order that cannot be read.
    pub fn new(
        parent: Option<String>,
        filter: &str,
        order: &str,
        limit: u64,
        after: Option<Json>,
    ) -> Result<Self, Error> {
        let refuse = |field, message| Error::Filter { field, message };
        let filter = Filter::parse(filter).map_err(|error| refuse("filter", error.to_string()))?;
        let order = order_by(order).map_err(|error| refuse("order_by", error.to_string()))?;
        Ok(Self { parent, filter, order, limit, after, count: false, deleted: false })
    }
}

/// Rows with their positions.
#[derive(Debug, Clone)]
pub struct Listing<T> {
    /// The resources.
    pub rows: Vec<Stored<T>>,
    /// Where each of them is in the order, for page tokens.
    pub positions: Vec<Json>,
    /// How many rows there are on all pages, when that was asked.
    pub total: Option<u64>,
}

/// Why a list cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The filter names what is not there.
    #[error("{0}")]
    Filter(FilterError),
    /// The order names what is not there.
    #[error("{0}")]
    Order(String),
    /// The page token is for another order.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<C: ConnectionTrait> Rows<'_, C> {
    /// A page.
    ///
    /// # Errors
    /// A filter, an order or a position that cannot be used, and the database's.
    pub async fn page<T: Table>(&self, permit: &Permit, query: &ListQuery) -> Result<Listing<T>, ListError> {
        let total = match query.count {
            true => {
                let chosen = self.chosen::<T>(permit, query)?;
                Some(chosen.count(self.connection).await.map_err(StoreError::from)?)
            }
            false => None,
        };
        let keys = keys::<T>(query)?;
        let rows = self.read(self.select::<T>(permit, query)?, query.deleted).await?;
        let positions = rows.iter().map(|row| position::<T>(row, &keys)).collect();
        Ok(Listing { rows, positions, total })
    }

    /// The query of a page.
    ///
    /// # Errors
    /// A filter, an order or a position that cannot be used.
    pub fn select<T: Table>(
        &self,
        permit: &Permit,
        query: &ListQuery,
    ) -> Result<Select<T::Entity>, ListError> {
        let mut select = self.chosen::<T>(permit, query)?;
        let mut keyset = Keyset::new(self.backend());
        for (key, descending) in keys::<T>(query)? {
            let (column, kind) = column::<T>(key).ok_or_else(|| ListError::Order(format!("{key:?}")))?;
            keyset = keyset.key(Expr::col(column), kind, descending);
        }
        let keyset = keyset.key(Expr::col(UID), KeyKind::Uuid, false);
        if let Some(position) = &query.after {
            select = select.filter(keyset.after(position)?);
        }
        Ok(keyset.order(select).limit(query.limit))
    }

    /// All that the pages hold.
    fn chosen<T: Table>(&self, permit: &Permit, query: &ListQuery) -> Result<Select<T::Entity>, ListError> {
        let mut select = below::<T>(permit, query.parent.as_deref());
        if !query.filter.is_empty() {
            let condition = T::condition(permit.organization(), &query.filter, self.backend());
            select = select.filter(condition.map_err(ListError::Filter)?);
        }
        Ok(if query.deleted { with_deleted::<T>(select) } else { select })
    }

    async fn read<T: Table>(
        &self,
        select: Select<T::Entity>,
        deleted: bool,
    ) -> Result<Vec<Stored<T>>, StoreError> {
        if deleted {
            let rows = Shown::<Model<T>>::select(select).into_model::<Shown<Model<T>>>();
            return rows.all(self.connection).await?.into_iter().map(Shown::read).collect();
        }
        select.all(self.connection).await?.into_iter().map(T::read).collect()
    }
}

fn keys<T: Table>(query: &ListQuery) -> Result<Vec<(Key, bool)>, ListError> {
    if query.order.is_empty() {
        return Ok(T::DEFAULT_ORDER.to_vec());
    }
    let mut keys = Vec::new();
    for (path, descending) in &query.order {
        let field = path.join(".");
        let known = T::ORDER.iter().find(|(name, _)| *name == field);
        let (_, known) = known.ok_or_else(|| {
            let sortable = T::ORDER.iter().map(|(name, _)| *name);
            ListError::Order(format!("`{field}` {}", filter::unsortable(&field, sortable)))
        })?;
        keys.extend(known.iter().map(|key| (*key, *descending)));
    }
    Ok(keys)
}

fn column<T: Table>(key: Key) -> Option<(&'static str, KeyKind)> {
    match key {
        Key::Id => Some((ID, KeyKind::Text)),
        Key::CreateTime => Some((CREATE_TIME, KeyKind::Number)),
        Key::UpdateTime => Some((UPDATE_TIME, KeyKind::Number)),
        Key::Parent => Some((T::PARENT?, KeyKind::Text)),
        Key::Column(column) => Some((column, KeyKind::Text)),
    }
}

fn position<T: Table>(row: &Stored<T>, keys: &[(Key, bool)]) -> Json {
    let value = |key: Key| match key {
        Key::Id => json!(row.id),
        Key::CreateTime => json!(pavior_store::micros(row.create_time)),
        Key::UpdateTime => json!(pavior_store::micros(row.update_time)),
        Key::Parent => json!(row.fields.parent()),
        Key::Column(column) => json!(T::key_value(row, column)),
    };
    let mut values: Vec<Json> = keys.iter().map(|(key, _)| value(*key)).collect();
    values.push(pavior_store::keyset::position::uuid(row.uid));
    Json::Array(values)
}
