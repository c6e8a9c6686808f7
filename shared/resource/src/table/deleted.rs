//! What is deleted and still kept: a second table beside that of each type of resource, with the same columns and the
//! times of its end. Names are free at once, so there can be several of one name; `uid` tells them apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use pavior_auth::Permit;
use pavior_core::clock::Clock;
use pavior_core::resource::{Ended, Stored};
use pavior_store::{Store, StoreError, micros};
use sea_orm::sea_query::{Alias, Expr, ExprTrait as _, Order, Query, SelectStatement, UnionType};
use sea_orm::{
    Condition, ConnectionTrait, DbBackend, DbErr, EntityName as _, EntityTrait, FromQueryResult, Iden as _,
    Iterable as _, QueryResult, QuerySelect, Select,
};
use sea_orm_migration::prelude::{MigrationName, MigrationTrait, SchemaManager};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{CHUNK, ID, ORGANIZATION, REVISION, Rows, Table, UID, confined, stored_time};

const DELETE_TIME: &str = "delete_time";
const PURGE_TIME: &str = "purge_time";

/// How long what is deleted is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// For so long.
    pub time: Duration,
    /// So many of a type in an organization, at most; the oldest go first.
    pub most: u64,
}

impl Keeping {
    /// Nothing is kept.
    pub const NOTHING: Self = Self { time: Duration::ZERO, most: 0 };

    /// For so many days; for none, nothing is kept.
    pub fn days(days: u32, most: u64) -> Self {
        Self { time: Duration::days(i64::from(days)), most: if days == 0 { 0 } else { most } }
    }

    /// The end of what is deleted now.
    pub fn ended(&self, now: OffsetDateTime) -> Ended {
        let time = if self.most == 0 { Duration::ZERO } else { self.time };
        Ended { delete_time: now, purge_time: now.checked_add(time).unwrap_or(now) }
    }
}

impl<C: ConnectionTrait> Rows<'_, C> {
    /// Deletes the row of this revision, and keeps it as what is deleted.
    ///
    /// # Errors
    /// A row that has moved on is a lost race; and the database's.
    pub async fn delete<T: Table>(
        &self,
        permit: &Permit,
        stored: &Stored<T>,
        now: OffsetDateTime,
        keeping: Keeping,
    ) -> Result<Ended, StoreError> {
        let (revision, ended) = (Expr::col(REVISION).eq(stored.revision), keeping.ended(now));
        self.end(permit, std::slice::from_ref(stored), Condition::all().add(revision), ended).await?;
        self.trim::<T>(permit.organization(), keeping).await?;
        Ok(ended)
    }

    /// Deletes rows that nothing else changes meanwhile, and keeps them as what is deleted.
    ///
    /// # Errors
    /// The database's.
    pub async fn delete_all<T: Table>(
        &self,
        permit: &Permit,
        stored: &[Stored<T>],
        now: OffsetDateTime,
        keeping: Keeping,
    ) -> Result<(), StoreError> {
        for chunk in stored.chunks(CHUNK) {
            self.end(permit, chunk, Condition::all(), keeping.ended(now)).await?;
            self.trim::<T>(permit.organization(), keeping).await?;
        }
        Ok(())
    }

    async fn end<T: Table>(
        &self,
        permit: &Permit,
        stored: &[Stored<T>],
        more: Condition,
        ended: Ended,
    ) -> Result<(), StoreError> {
        for stored in stored {
            confined(permit, &stored.organization)?;
        }
        let chosen = Condition::all()
            .add(Expr::col(ORGANIZATION).eq(permit.organization()))
            .add(Expr::col(UID).is_in(uids(stored.iter().map(|stored| stored.uid))))
            .add(more);
        let times = [Expr::val(micros(ended.delete_time)), Expr::val(micros(ended.purge_time))];
        let kept = columns_of::<T>(times).from(Alias::new(live::<T>())).cond_where(chosen.clone()).to_owned();
        let columns = columns::<T>().chain([DELETE_TIME.to_owned(), PURGE_TIME.to_owned()]).map(Alias::new);
        let mut insert = Query::insert();
        insert.into_table(Alias::new(deleted::<T>())).columns(columns);
        insert.select_from(kept).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let kept = self.connection().execute(&insert).await?.rows_affected();
        let done = T::Entity::delete_many();
        let done = sea_orm::QueryFilter::filter(done, chosen).exec(self.connection()).await?;
        match (kept, done.rows_affected) {
            (kept, gone) if kept == gone && gone == stored.len() as u64 => Ok(()),
            _ => Err(StoreError::Concurrent),
        }
    }

    /// Gives up the oldest of those that are more than are kept, a bounded number of them: as many as one call deletes,
    /// at least. Where fewer are kept than before, the sweep does the rest. Says how many.
    async fn trim<T: Table>(&self, organization: &str, keeping: Keeping) -> Result<usize, StoreError> {
        let mut old = Query::select();
        old.columns([ORGANIZATION, UID])
            .from(Alias::new(deleted::<T>()))
            .and_where(Expr::col(ORGANIZATION).eq(organization))
            .order_by(DELETE_TIME, Order::Desc)
            .order_by(UID, Order::Desc)
            .offset(keeping.most)
            .limit(CHUNK as u64);
        self.purge::<T>(&old).await
    }

    /// Gives up those that a query finds, with what belongs to them; says how many.
    async fn purge<T: Table>(&self, old: &SelectStatement) -> Result<usize, StoreError> {
        let connection = self.connection();
        let rows = connection.query_all(old).await?;
        let mut found: BTreeMap<String, Vec<Uuid>> = BTreeMap::new();
        for row in &rows {
            found.entry(row.try_get("", ORGANIZATION)?).or_default().push(row.try_get("", UID)?);
        }
        for (organization, gone) in &found {
            let tables = [(deleted::<T>(), UID)].into_iter();
            let with_it = T::WITH_IT.iter().map(|(table, column)| ((*table).to_owned(), *column));
            for (table, column) in tables.chain(with_it) {
                let mut delete = Query::delete();
                // By organization, too, with which every index begins.
                delete
                    .from_table(Alias::new(table))
                    .and_where(Expr::col(ORGANIZATION).eq(organization.as_str()))
                    .and_where(Expr::col(column).is_in(uids(gone.iter().copied())));
                connection.execute(&delete).await?;
            }
        }
        Ok(rows.len())
    }

    /// Gives up those whose time is over, a bounded number of them; says how many. A time that was made shorter since
    /// holds for them, too.
    async fn expire<T: Table>(&self, now: OffsetDateTime, keeping: Keeping) -> Result<usize, StoreError> {
        let deleted_before = now.checked_sub(keeping.time).unwrap_or(now);
        let over = Condition::any()
            .add(Expr::col(PURGE_TIME).lte(micros(now)))
            .add(Expr::col(DELETE_TIME).lte(micros(deleted_before)));
        let mut old = Query::select();
        old.columns([ORGANIZATION, UID])
            .from(Alias::new(deleted::<T>()))
            .cond_where(over)
            .limit(CHUNK as u64);
        self.purge::<T>(&old).await
    }

    /// Gives up a bounded number of those of the first organization that has more than are kept; says how many.
    async fn crowded<T: Table>(&self, keeping: Keeping) -> Result<usize, StoreError> {
        let mut crowded = Query::select();
        crowded
            .column(ORGANIZATION)
            .from(Alias::new(deleted::<T>()))
            .group_by_col(ORGANIZATION)
            .and_having(Expr::col(UID).count().gt(keeping.most))
            .limit(1);
        match self.connection().query_one(&crowded).await? {
            Some(row) => self.trim::<T>(&row.try_get::<String>("", ORGANIZATION)?, keeping).await,
            None => Ok(0),
        }
    }
}

/// As `select`, over what is deleted and still kept, too.
pub(crate) fn with_deleted<T: Table>(mut select: Select<T::Entity>) -> Select<T::Entity> {
    // With a type: SQLite takes both tables in the order of their indexes only where their columns have the same one.
    let live_times = ["CAST(NULL AS bigint)"; 2].map(Expr::cust);
    let mut both = columns_of::<T>(live_times).from(Alias::new(live::<T>())).to_owned();
    let times = [Expr::col(DELETE_TIME), Expr::col(PURGE_TIME)];
    let gone = columns_of::<T>(times).from(Alias::new(deleted::<T>())).to_owned();
    both.union(UnionType::All, gone);
    QuerySelect::query(&mut select).from_clear().from_subquery(both, Alias::new(live::<T>()));
    select
}

/// A row that may be of what is deleted.
pub(crate) struct Shown<M> {
    model: M,
    times: Option<(i64, i64)>,
}

impl<M: FromQueryResult> FromQueryResult for Shown<M> {
    fn from_query_result(row: &QueryResult, prefix: &str) -> Result<Self, DbErr> {
        let at = |column| row.try_get::<Option<i64>>(prefix, column);
        let times = at(DELETE_TIME)?.zip(at(PURGE_TIME)?);
        Ok(Self { model: M::from_query_result(row, prefix)?, times })
    }
}

impl<M> Shown<M> {
    /// The columns of the times, for a query over what is deleted, too.
    pub(crate) fn select<E: EntityTrait>(select: Select<E>) -> Select<E> {
        select.expr(Expr::col(DELETE_TIME)).expr(Expr::col(PURGE_TIME))
    }

    /// The resource.
    pub(crate) fn read<T>(self) -> Result<Stored<T>, StoreError>
    where
        T: Table<Entity: EntityTrait<Model = M>>,
    {
        let ended = match self.times {
            Some((deleted, purged)) => {
                Some(Ended { delete_time: stored_time(deleted)?, purge_time: stored_time(purged)? })
            }
            None => None,
        };
        Ok(Stored { ended, ..T::read(self.model)? })
    }
}

fn live<T: Table>() -> String {
    T::Entity::default().table_name().to_owned()
}

fn deleted<T: Table>() -> String {
    table_of(&live::<T>())
}

fn table_of(live: &str) -> String {
    format!("deleted_{live}")
}

fn columns<T: Table>() -> impl Iterator<Item = String> {
    <T::Entity as EntityTrait>::Column::iter().map(|column| column.unquoted().to_owned())
}

fn columns_of<T: Table>(times: [Expr; 2]) -> SelectStatement {
    let mut select = Query::select();
    let [deleted, purged] = times;
    select.columns(columns::<T>().map(Alias::new));
    select.expr_as(deleted, DELETE_TIME).expr_as(purged, PURGE_TIME);
    select
}

fn uids(uids: impl Iterator<Item = Uuid>) -> Vec<sea_orm::Value> {
    uids.map(Into::into).collect()
}

/// Gives up what is deleted and no longer kept, of one type in all organizations.
#[derive(Clone)]
pub struct Purge {
    table: String,
    purge: Arc<dyn Fn(Store, OffsetDateTime, Keeping) -> Purging + Send + Sync>,
}

type Purging = std::pin::Pin<Box<dyn Future<Output = Result<usize, StoreError>> + Send>>;

impl std::fmt::Debug for Purge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Purge").field(&self.table).finish()
    }
}

impl Purge {
    /// Of a type.
    pub fn of<T: Table>() -> Self {
        let purge = |store, now, keeping| -> Purging {
            Box::pin(async move { purge_all::<T>(&store, now, keeping).await })
        };
        Self { table: deleted::<T>(), purge: Arc::new(purge) }
    }

    /// The table of what is deleted.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Gives up all whose time is over, or of which there are too many, in transactions of a bounded number of rows; says
    /// how many.
    ///
    /// # Errors
    /// The database's.
    pub async fn run(&self, store: &Store, clock: &dyn Clock, keeping: Keeping) -> Result<usize, StoreError> {
        (self.purge)(store.clone(), clock.now(), keeping).await
    }
}

async fn purge_all<T: Table>(
    store: &Store,
    now: OffsetDateTime,
    keeping: Keeping,
) -> Result<usize, StoreError> {
    let mut purged = 0;
    loop {
        let found = store
            .upkeep("what is deleted and no longer kept", move |tx| {
                Box::pin(async move {
                    let rows = Rows::new(tx);
                    Ok::<_, StoreError>(match rows.expire::<T>(now, keeping).await? {
                        0 => rows.crowded::<T>(keeping).await?,
                        expired => expired,
                    })
                })
            })
            .await?;
        purged += found;
        if found == 0 {
            return Ok(purged);
        }
    }
}

/// The migration that makes the tables of what is deleted, beside these.
pub fn migration(name: &'static str, tables: &'static [&'static str]) -> Box<dyn MigrationTrait> {
    Box::new(Migration { name, tables })
}

struct Migration {
    name: &'static str,
    tables: &'static [&'static str],
}

impl MigrationName for Migration {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        for live in self.tables {
            let deleted = table_of(live);
            let times =
                format!("{DELETE_TIME} bigint NOT NULL, {PURGE_TIME} bigint NOT NULL, PRIMARY KEY ({UID})");
            let columns = match manager.get_database_backend() {
                DbBackend::Postgres => format!("LIKE \"{live}\""),
                _ => declared(connection, live).await?,
            };
            let indexes = [
                format!(
                    "CREATE INDEX \"{deleted}_delete_time\" ON \"{deleted}\" ({ORGANIZATION}, {DELETE_TIME}, {UID})"
                ),
                format!("CREATE INDEX \"{deleted}_purge_time\" ON \"{deleted}\" ({PURGE_TIME})"),
                format!("CREATE INDEX \"{deleted}_id\" ON \"{deleted}\" ({ORGANIZATION}, {ID})"),
            ];
            connection
                .execute_unprepared(&format!("CREATE TABLE \"{deleted}\" ({columns}, {times})"))
                .await?;
            for index in indexes {
                connection.execute_unprepared(&index).await?;
            }
        }
        Ok(())
    }
}

/// The columns of a table of SQLite with the types that SeaORM reads them by, and nothing unique.
async fn declared(connection: &impl ConnectionTrait, table: &str) -> Result<String, DbErr> {
    let mut query = Query::select();
    query
        .columns(["name", "type", "notnull"])
        .from_function(sea_orm::sea_query::Func::cust("pragma_table_info").arg(table), "columns");
    let mut columns = Vec::new();
    for row in connection.query_all(&query).await? {
        let (name, kind): (String, String) = (row.try_get("", "name")?, row.try_get("", "type")?);
        let filled = if row.try_get::<i64>("", "notnull")? == 1 { " NOT NULL" } else { "" };
        columns.push(format!("\"{name}\" {kind}{filled}"));
    }
    Ok(columns.join(", "))
}
