//! Tables of resources: find, list, insert, update and delete by organization and id. Every query takes a permit and
//! sees its organization only.

pub mod deleted;
pub(crate) mod list;

use pavior_auth::Permit;
use pavior_core::filter::Filter;
use pavior_core::resource::{Fields, Stored};
use pavior_store::filter::{FieldMap, FilterError};
use pavior_store::{StoreError, filter};
pub use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveModelTrait as _, Condition, DbBackend, EntityTrait, IntoActiveModel, PaginatorTrait,
    QueryFilter as _, QuerySelect as _, Select,
};
use time::OffsetDateTime;

/// Most values in one `IN` list or rows in one insert; both databases bound the number of bound values.
pub const CHUNK: usize = 500;

// Every table of resources has these columns.
pub(crate) const UID: &str = "uid";
pub(crate) const ORGANIZATION: &str = "organization";
pub(crate) const ID: &str = "id";
pub(crate) const REVISION: &str = "revision";
pub(crate) const CREATE_TIME: &str = "create_time";
pub(crate) const UPDATE_TIME: &str = "update_time";

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

pub(crate) type Model<T> = <<T as Table>::Entity as EntityTrait>::Model;
type Active<T> = <<T as Table>::Entity as EntityTrait>::ActiveModel;

/// The table of a type of resource.
pub trait Table: Fields {
    /// The table, with a row as both databases keep it.
    type Entity: EntityTrait<Model: IntoActiveModel<Active<Self>> + Send + Sync, ActiveModel: Send, Column: Copy>;
    /// The column of the resource above, other than the organization: an entity's kind, a version's template.
    const PARENT: Option<&'static str> = None;
    /// The tables, each with its column of uids, whose rows belong to it and are kept as long as it is, when deleted.
    const WITH_IT: &'static [(&'static str, &'static str)] = &[];
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
}

/// The resources of the organization; `None` below whichever parent.
pub(crate) fn below<T: Table>(permit: &Permit, parent: Option<&str>) -> Select<T::Entity> {
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
