//! What the tables of resources have in common: find, list, insert, update and delete by organization and id.

use pavior_auth::Permit;
use pavior_core::filter::Filter;
use pavior_store::filter::{FieldMap, FilterError};
use pavior_store::keyset::{KeyKind, Keyset, PositionError};
use pavior_store::{StoreError, filter};
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DbBackend, EntityTrait, IntoActiveModel, QueryFilter as _,
    QuerySelect as _,
};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::{CHUNK, Db, confined};
use crate::domain::{Resource, Stored};

/// Something that a list can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Parent,
    Id,
    DisplayName,
    CreateTime,
    UpdateTime,
    Version,
}

/// The columns that every table of resources has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns<C> {
    pub(crate) uid: C,
    pub(crate) organization: C,
    pub(crate) id: C,
    pub(crate) revision: C,
    pub(crate) create_time: C,
    pub(crate) update_time: C,
}

type Column<T> = <<T as Table>::Entity as EntityTrait>::Column;
type Model<T> = <<T as Table>::Entity as EntityTrait>::Model;
type Active<T> = <<T as Table>::Entity as EntityTrait>::ActiveModel;

/// A resource with its table.
pub(crate) trait Table: Resource {
    type Entity: EntityTrait<Model: IntoActiveModel<Active<Self>> + Send + Sync, ActiveModel: Send, Column: Copy>;
    /// What a list is sorted by when nobody says.
    const DEFAULT_ORDER: &'static [(Key, bool)] = &[(Key::Id, false)];
    fn columns() -> Columns<Column<Self>>;
    /// The column of the resource above, other than the organization: an entity's kind, a version's template.
    fn parent_column() -> Option<Column<Self>> {
        None
    }
    /// The resource above, other than the organization.
    fn parent(&self) -> &str {
        ""
    }
    /// The columns of keys that not every table has.
    fn key_column(_key: Key) -> Option<Column<Self>> {
        None
    }
    /// What an order field means.
    fn order(field: &str) -> Option<&'static [Key]>;
    /// The fields of a filter.
    fn filter_fields(fields: FieldMap) -> FieldMap;
    /// Turns a filter into SQL; some tables know more than the fields.
    fn condition(_organization: &str, parsed: &Filter, backend: DbBackend) -> Result<Condition, FilterError> {
        filter::condition(parsed, &Self::filter_fields(FieldMap::new(backend)))
    }
    fn read(row: Model<Self>) -> Result<Stored<Self>, StoreError>;
    fn write(stored: &Stored<Self>) -> Model<Self>;
}

/// What to list.
#[derive(Debug, Clone)]
pub(crate) struct ListQuery {
    /// The resource above, other than the organization; `None` for all.
    pub(crate) parent: Option<String>,
    pub(crate) filter: Filter,
    /// Fields with whether they are descending.
    pub(crate) order: Vec<(Vec<String>, bool)>,
    pub(crate) limit: u64,
    /// The position of the last row of the page before.
    pub(crate) after: Option<Json>,
}

/// Rows with their positions.
#[derive(Debug, Clone)]
pub(crate) struct Listing<T> {
    pub(crate) rows: Vec<Stored<T>>,
    pub(crate) positions: Vec<Json>,
}

/// Why a list cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    #[error("{0}")]
    Filter(FilterError),
    #[error("{0}")]
    Order(String),
    #[error(transparent)]
    Position(#[from] PositionError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<C: ConnectionTrait> Db<'_, C> {
    /// One resource. `parent` is the kind or the template; empty for other tables.
    pub(crate) async fn find<T: Table>(
        &self,
        permit: &Permit,
        parent: &str,
        id: &str,
    ) -> Result<Option<Stored<T>>, StoreError> {
        let columns = T::columns();
        let mut select = T::Entity::find()
            .filter(columns.organization.eq(permit.organization()))
            .filter(columns.id.eq(id));
        if let Some(column) = T::parent_column() {
            select = select.filter(column.eq(parent));
        }
        select.one(self.connection).await?.map(T::read).transpose()
    }

    /// Several resources by id, in any order; those that do not exist are left out.
    pub(crate) async fn find_many<T: Table>(
        &self,
        permit: &Permit,
        parent: &str,
        ids: &[String],
    ) -> Result<Vec<Stored<T>>, StoreError> {
        let columns = T::columns();
        let mut found = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(CHUNK) {
            let mut select = T::Entity::find()
                .filter(columns.organization.eq(permit.organization()))
                .filter(columns.id.is_in(chunk));
            if let Some(column) = T::parent_column() {
                select = select.filter(column.eq(parent));
            }
            for row in select.all(self.connection).await? {
                found.push(T::read(row)?);
            }
        }
        Ok(found)
    }

    /// A page.
    pub(crate) async fn page<T: Table>(
        &self,
        permit: &Permit,
        query: &ListQuery,
    ) -> Result<Listing<T>, ListError> {
        let columns = T::columns();
        let mut select = T::Entity::find().filter(columns.organization.eq(permit.organization()));
        if let (Some(column), Some(parent)) = (T::parent_column(), &query.parent) {
            select = select.filter(column.eq(parent.as_str()));
        }
        if !query.filter.is_empty() {
            let condition = T::condition(permit.organization(), &query.filter, self.backend());
            select = select.filter(condition.map_err(ListError::Filter)?);
        }
        let keys = keys::<T>(query)?;
        let mut keyset = Keyset::new(self.backend());
        for (key, descending) in &keys {
            let (column, kind) = column::<T>(*key).ok_or_else(|| ListError::Order(format!("{key:?}")))?;
            keyset = keyset.key(Expr::col(column), kind, *descending);
        }
        let keyset = keyset.key(Expr::col(columns.uid), KeyKind::Uuid, false);
        if let Some(position) = &query.after {
            select = select.filter(keyset.after(position)?);
            if let Some(bound) = bound::<T>(&keys, position) {
                select = select.filter(bound);
            }
        }
        let models =
            keyset.order(select).limit(query.limit).all(self.connection).await.map_err(StoreError::from)?;
        let rows = models.into_iter().map(T::read).collect::<Result<Vec<_>, _>>()?;
        let positions = rows.iter().map(|row| position::<T>(row, &keys)).collect();
        Ok(Listing { rows, positions })
    }

    /// Whether the table has a row below `parent`.
    pub(crate) async fn ids_below<T: Table>(
        &self,
        permit: &Permit,
        parent: &str,
        limit: u64,
    ) -> Result<Vec<String>, StoreError> {
        let columns = T::columns();
        let Some(column) = T::parent_column() else { return Ok(Vec::new()) };
        let ids: Vec<String> = T::Entity::find()
            .select_only()
            .column(columns.id)
            .filter(columns.organization.eq(permit.organization()))
            .filter(column.eq(parent))
            .limit(limit)
            .into_tuple()
            .all(self.connection)
            .await?;
        Ok(ids)
    }

    /// Inserts. A row of the same name is a [`StoreError`] of the kind `Unique`.
    pub(crate) async fn insert<T: Table>(
        &self,
        permit: &Permit,
        stored: &Stored<T>,
    ) -> Result<(), StoreError> {
        confined(permit, &stored.organization)?;
        self.insert_unscoped(stored).await
    }

    pub(super) async fn insert_unscoped<T: Table>(&self, stored: &Stored<T>) -> Result<(), StoreError> {
        let row = T::write(stored).into_active_model();
        T::Entity::insert(row).exec_without_returning(self.connection).await?;
        Ok(())
    }

    /// Replaces the row of the revision before `stored`. A row that has moved on is a lost race.
    pub(crate) async fn update<T: Table>(
        &self,
        permit: &Permit,
        stored: &Stored<T>,
    ) -> Result<(), StoreError> {
        confined(permit, &stored.organization)?;
        let columns = T::columns();
        let row = all_set::<T>(T::write(stored));
        let done = T::Entity::update_many()
            .set(row)
            .filter(columns.organization.eq(permit.organization()))
            .filter(columns.uid.eq(stored.uid))
            .filter(columns.revision.eq(stored.revision - 1))
            .exec(self.connection)
            .await?;
        if done.rows_affected == 1 { Ok(()) } else { Err(StoreError::Concurrent) }
    }

    /// Deletes the row of this revision.
    pub(crate) async fn delete<T: Table>(
        &self,
        permit: &Permit,
        stored: &Stored<T>,
    ) -> Result<(), StoreError> {
        confined(permit, &stored.organization)?;
        let columns = T::columns();
        let done = T::Entity::delete_many()
            .filter(columns.organization.eq(permit.organization()))
            .filter(columns.uid.eq(stored.uid))
            .filter(columns.revision.eq(stored.revision))
            .exec(self.connection)
            .await?;
        if done.rows_affected == 1 { Ok(()) } else { Err(StoreError::Concurrent) }
    }
}

/// A row in which every column is to be written.
pub(super) fn all_set<T: Table>(row: Model<T>) -> Active<T> {
    use sea_orm::ActiveModelTrait as _;
    row.into_active_model().reset_all()
}

fn keys<T: Table>(query: &ListQuery) -> Result<Vec<(Key, bool)>, ListError> {
    if query.order.is_empty() {
        return Ok(T::DEFAULT_ORDER.to_vec());
    }
    let mut keys = Vec::new();
    for (path, descending) in &query.order {
        let field = path.join(".");
        let known =
            T::order(&field).ok_or_else(|| ListError::Order(format!("`{field}` cannot be sorted by")))?;
        keys.extend(known.iter().map(|key| (*key, *descending)));
    }
    Ok(keys)
}

fn column<T: Table>(key: Key) -> Option<(Column<T>, KeyKind)> {
    let columns = T::columns();
    match key {
        Key::Id => Some((columns.id, KeyKind::Text)),
        Key::CreateTime => Some((columns.create_time, KeyKind::Number)),
        Key::UpdateTime => Some((columns.update_time, KeyKind::Number)),
        Key::Parent => Some((T::parent_column()?, KeyKind::Text)),
        Key::DisplayName | Key::Version => Some((T::key_column(key)?, KeyKind::Text)),
    }
}

fn position<T: Table>(row: &Stored<T>, keys: &[(Key, bool)]) -> Json {
    let value = |key: Key| match key {
        Key::Id => json!(row.id),
        Key::CreateTime => json!(pavior_store::micros(row.create_time)),
        Key::UpdateTime => json!(pavior_store::micros(row.update_time)),
        Key::Parent => json!(row.fields.parent()),
        Key::DisplayName => json!(row.fields.display_name()),
        Key::Version => json!(crate::domain::version::sort_key(&row.id)),
    };
    let mut values: Vec<Json> = keys.iter().map(|(key, _)| value(*key)).collect();
    values.push(pavior_store::keyset::position::uuid(row.uid));
    Json::Array(values)
}

/// What holds of every row that follows, on the first key alone: an index can begin there, which it cannot with the
/// alternatives of the whole position.
fn bound<T: Table>(keys: &[(Key, bool)], position: &Json) -> Option<sea_orm::sea_query::SimpleExpr> {
    let (key, descending) = keys.first()?;
    let (column, kind) = column::<T>(*key)?;
    let value = match (kind, position.get(0)?) {
        (KeyKind::Number, Json::Number(number)) => Expr::val(number.as_i64()?),
        (KeyKind::Text, Json::String(text)) => Expr::val(text.as_str()),
        _ => return None,
    };
    let column = Expr::col(column);
    Some(if *descending { column.lte(value) } else { column.gte(value) })
}

/// Uids as the databases keep them.
pub(super) fn uids(values: &[Uuid]) -> Vec<sea_orm::Value> {
    values.iter().map(|uid| (*uid).into()).collect()
}
