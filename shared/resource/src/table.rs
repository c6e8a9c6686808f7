//! Tables of resources: find, list, insert, update and delete by organization and id. Every query takes a permit and
//! sees its organization only.

use pavior_auth::Permit;
use pavior_core::filter::{Filter, order_by};
use pavior_core::resource::{Fields, Stored};
use pavior_store::filter::{FieldMap, FilterError};
use pavior_store::keyset::{KeyKind, Keyset, PositionError};
use pavior_store::{StoreError, filter};
pub use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveModelTrait as _, Condition, DbBackend, EntityTrait, IntoActiveModel, PaginatorTrait,
    QueryFilter as _, QuerySelect as _, Select,
};
use serde_json::{Value as Json, json};
use time::OffsetDateTime;

use crate::Error;

/// Most values in one `IN` list or rows in one insert; both databases bound the number of bound values.
pub const CHUNK: usize = 500;

// Every table of resources has these columns.
const UID: &str = "uid";
const ORGANIZATION: &str = "organization";
const ID: &str = "id";
const REVISION: &str = "revision";
const CREATE_TIME: &str = "create_time";
const UPDATE_TIME: &str = "update_time";

/// Something that a list can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The id of the resource above, other than the organization.
    Parent,
    /// The id.
    Id,
    /// When it was created.
    CreateTime,
    /// When it was last changed.
    UpdateTime,
    /// Another column of text, see [`Table::key_value`].
    Column(&'static str),
}

type Model<T> = <<T as Table>::Entity as EntityTrait>::Model;
type Active<T> = <<T as Table>::Entity as EntityTrait>::ActiveModel;

/// The table of a type of resource.
pub trait Table: Fields {
    /// The table, with a row as both databases keep it.
    type Entity: EntityTrait<Model: IntoActiveModel<Active<Self>> + Send + Sync, ActiveModel: Send, Column: Copy>;
    /// The column of the resource above, other than the organization: an entity's kind, a version's template.
    const PARENT: Option<&'static str> = None;
    /// What a list is sorted by when nobody says.
    const DEFAULT_ORDER: &'static [(Key, bool)] = &[(Key::Id, false)];
    /// The order fields, each with what it means.
    const ORDER: &'static [(&'static str, &'static [Key])] =
        &[("name", &[Key::Id]), ("create_time", &[Key::CreateTime])];

    /// The id of the resource above, other than the organization.
    fn parent(&self) -> &str {
        ""
    }
    /// The text in a column that [`Key::Column`] names.
    fn key_value(_stored: &Stored<Self>, _column: &str) -> String {
        String::new()
    }
    /// The filter fields, beside `create_time`.
    fn filter_fields(fields: FieldMap) -> FieldMap;
    /// Turns a filter into SQL; some tables know more than the fields.
    ///
    /// # Errors
    /// A field that there is not, or a value that does not fit.
    fn condition(_organization: &str, parsed: &Filter, backend: DbBackend) -> Result<Condition, FilterError> {
        filter::condition(parsed, &fields_of::<Self>(backend))
    }
    /// The resource of a row.
    ///
    /// # Errors
    /// A row that no version of the service can have written.
    fn read(row: Model<Self>) -> Result<Stored<Self>, StoreError>;
    /// The row of a resource.
    fn write(stored: &Stored<Self>) -> Model<Self>;
}

/// The filter fields of a table.
pub fn fields_of<T: Table>(backend: DbBackend) -> FieldMap {
    T::filter_fields(FieldMap::new(backend).timestamp_micros("create_time", CREATE_TIME))
}

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
        Ok(Self { parent, filter, order, limit, after, count: false })
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

/// Queries over a connection or in a transaction.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, C> {
    connection: &'a C,
}

impl<'a, C: ConnectionTrait> Rows<'a, C> {
    /// Over this connection.
    pub fn new(connection: &'a C) -> Self {
        Self { connection }
    }

    /// The connection.
    pub fn connection(&self) -> &'a C {
        self.connection
    }

    /// Which database it is.
    pub fn backend(&self) -> DbBackend {
        self.connection.get_database_backend()
    }

    /// One resource. `parent` is the id of the resource above, other than the organization.
    ///
    /// # Errors
    /// The database's.
    pub async fn find<T: Table>(
        &self,
        permit: &Permit,
        parent: &str,
        id: &str,
    ) -> Result<Option<Stored<T>>, StoreError> {
        let select = below::<T>(permit, Some(parent)).filter(Expr::col(ID).eq(id));
        select.one(self.connection).await?.map(T::read).transpose()
    }

    /// Several resources by id, in any order; those that do not exist are left out.
    ///
    /// # Errors
    /// The database's.
    pub async fn find_many<T: Table>(
        &self,
        permit: &Permit,
        parent: &str,
        ids: &[String],
    ) -> Result<Vec<Stored<T>>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(CHUNK) {
            let select = below::<T>(permit, Some(parent)).filter(Expr::col(ID).is_in(chunk));
            for row in select.all(self.connection).await? {
                found.push(T::read(row)?);
            }
        }
        Ok(found)
    }

    /// All resources of the organization, by id.
    ///
    /// # Errors
    /// The database's.
    pub async fn all<T: Table>(&self, permit: &Permit) -> Result<Vec<Stored<T>>, StoreError> {
        let rows = below::<T>(permit, None).all(self.connection).await?;
        let mut all = rows.into_iter().map(T::read).collect::<Result<Vec<_>, _>>()?;
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// How many resources the organization has.
    ///
    /// # Errors
    /// The database's.
    pub async fn count<T: Table>(&self, permit: &Permit) -> Result<u64, StoreError> {
        Ok(below::<T>(permit, None).count(self.connection).await?)
    }

    /// A page.
    ///
    /// # Errors
    /// A filter, an order or a position that cannot be used, and the database's.
    pub async fn page<T: Table>(&self, permit: &Permit, query: &ListQuery) -> Result<Listing<T>, ListError> {
        let mut select = below::<T>(permit, query.parent.as_deref());
        if !query.filter.is_empty() {
            let condition = T::condition(permit.organization(), &query.filter, self.backend());
            select = select.filter(condition.map_err(ListError::Filter)?);
        }
        let total = match query.count {
            true => Some(select.clone().count(self.connection).await.map_err(StoreError::from)?),
            false => None,
        };
        let keys = keys::<T>(query)?;
        let mut keyset = Keyset::new(self.backend());
        for (key, descending) in &keys {
            let (column, kind) = column::<T>(*key).ok_or_else(|| ListError::Order(format!("{key:?}")))?;
            keyset = keyset.key(Expr::col(column), kind, *descending);
        }
        let keyset = keyset.key(Expr::col(UID), KeyKind::Uuid, false);
        if let Some(position) = &query.after {
            select = select.filter(keyset.after(position)?);
        }
        let models =
            keyset.order(select).limit(query.limit).all(self.connection).await.map_err(StoreError::from)?;
        let rows = models.into_iter().map(T::read).collect::<Result<Vec<_>, _>>()?;
        let positions = rows.iter().map(|row| position::<T>(row, &keys)).collect();
        Ok(Listing { rows, positions, total })
    }

    /// Ids of the first resources below `parent`.
    ///
    /// # Errors
    /// The database's.
    pub async fn ids_below<T: Table>(
        &self,
        permit: &Permit,
        parent: &str,
        limit: u64,
    ) -> Result<Vec<String>, StoreError> {
        let select = below::<T>(permit, Some(parent)).select_only().expr(Expr::col(ID)).limit(limit);
        Ok(select.into_tuple().all(self.connection).await?)
    }

    /// Inserts. A row of the same name is a [`StoreError`] of the kind `Unique`.
    ///
    /// # Errors
    /// The database's.
    pub async fn insert<T: Table>(&self, permit: &Permit, stored: &Stored<T>) -> Result<(), StoreError> {
        confined(permit, &stored.organization)?;
        self.insert_unscoped(stored).await
    }

    /// Inserts into whichever organization: only for what makes organizations.
    ///
    /// # Errors
    /// The database's.
    pub async fn insert_unscoped<T: Table>(&self, stored: &Stored<T>) -> Result<(), StoreError> {
        let row = T::write(stored).into_active_model();
        T::Entity::insert(row).exec_without_returning(self.connection).await?;
        Ok(())
    }

    /// Replaces the row of the revision before `stored`. A row that has moved on is a lost race.
    ///
    /// # Errors
    /// The database's.
    pub async fn update<T: Table>(&self, permit: &Permit, stored: &Stored<T>) -> Result<(), StoreError> {
        confined(permit, &stored.organization)?;
        let done = T::Entity::update_many()
            .set(all_set::<T>(T::write(stored)))
            .filter(Expr::col(ORGANIZATION).eq(permit.organization()))
            .filter(Expr::col(UID).eq(stored.uid))
            .filter(Expr::col(REVISION).eq(stored.revision - 1))
            .exec(self.connection)
            .await?;
        if done.rows_affected == 1 { Ok(()) } else { Err(StoreError::Concurrent) }
    }

    /// Deletes the row of this revision.
    ///
    /// # Errors
    /// The database's.
    pub async fn delete<T: Table>(&self, permit: &Permit, stored: &Stored<T>) -> Result<(), StoreError> {
        confined(permit, &stored.organization)?;
        let done = T::Entity::delete_many()
            .filter(Expr::col(ORGANIZATION).eq(permit.organization()))
            .filter(Expr::col(UID).eq(stored.uid))
            .filter(Expr::col(REVISION).eq(stored.revision))
            .exec(self.connection)
            .await?;
        if done.rows_affected == 1 { Ok(()) } else { Err(StoreError::Concurrent) }
    }
}

/// The resources of the organization; `None` below whichever parent.
fn below<T: Table>(permit: &Permit, parent: Option<&str>) -> Select<T::Entity> {
    let select = T::Entity::find().filter(Expr::col(ORGANIZATION).eq(permit.organization()));
    match (T::PARENT, parent) {
        (Some(column), Some(parent)) => select.filter(Expr::col(column).eq(parent)),
        _ => select,
    }
}

/// A permit and the organization of a row must agree; that they do not is a bug of the caller.
///
/// # Errors
/// When they do not.
pub fn confined(permit: &Permit, organization: &str) -> Result<(), StoreError> {
    if permit.organization() == organization {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!(
        "row of organization `{organization}` under a permit for `{}`",
        permit.organization()
    )))
}

/// A time as it is stored.
///
/// # Errors
/// One that is out of range.
pub fn stored_time(micros: i64) -> Result<OffsetDateTime, StoreError> {
    pavior_store::from_micros(micros)
        .ok_or_else(|| StoreError::Corrupt(format!("time {micros} is out of range")))
}

/// A row in which every column is to be written.
pub fn all_set<T: Table>(row: Model<T>) -> Active<T> {
    row.into_active_model().reset_all()
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
