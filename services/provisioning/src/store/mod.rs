//! What is kept: the tables, and every transaction on them.

/// A row as its domain type: every column is named, those that the domain does not know among them.
macro_rules! from_row {
    (
        $entity:ident::Model => $domain:ident { $($field:ident),+ $(,)? }
        with { $($to:ident: $from:ident $(.$map:tt $(($($arg:tt)*))?)*),* $(,)? }
        without { $($ignored:ident),* $(,)? }
    ) => {
        impl From<$entity::Model> for $domain {
            fn from(row: $entity::Model) -> Self {
                let $entity::Model { $($field,)+ $($from,)* $($ignored: _,)* } = row;
                Self { $($field,)+ $($to: $from $(.$map $(($($arg)*))?)*,)* }
            }
        }
    };
}

/// Reads of one resource by its name, of the permit's organization.
macro_rules! by_name {
    ($($(#[$doc:meta])* $method:ident, $optional:ident, $entity:ident => $domain:ident);+ $(;)?) => {
        impl $crate::store::Db {
            $(
                $(#[$doc])*
                pub async fn $method(&self, permit: &Permit, name: &str) -> Result<$domain> {
                    found(self.$optional(permit, name).await?, stringify!($domain), name)
                }

                /// The same, if it exists.
                pub async fn $optional(&self, permit: &Permit, name: &str) -> Result<Option<$domain>> {
                    let row = $entity::Entity::find()
                        .filter($entity::Column::Organization.eq(permit.organization()))
                        .filter($entity::Column::Name.eq(name));
                    self.one(row).await
                }
            )+
        }
    };
}

/// Reads of many resources, of the permit's organization, by what they have in a column.
macro_rules! keyed {
    ($($(#[$doc:meta])* $method:ident, $entity:ident.$column:ident => $domain:ident.$field:ident);+ $(;)?) => {
        impl $crate::store::Db {
            $(
                $(#[$doc])*
                pub async fn $method(
                    &self,
                    permit: &Permit,
                    keys: Vec<String>,
                ) -> Result<BTreeMap<String, $domain>> {
                    if keys.is_empty() {
                        return Ok(BTreeMap::new());
                    }
                    let rows = $entity::Entity::find()
                        .filter($entity::Column::Organization.eq(permit.organization()))
                        .filter($entity::Column::$column.is_in(keys));
                    let rows = self.all(rows).await?.into_iter();
                    Ok(rows.map(|row: $domain| (row.$field.clone(), row)).collect())
                }
            )+
        }
    };
}

/// The words of a closed set, as they stand in filters and in the database.
macro_rules! words {
    ($name:ident) => {
        $name::ALL.iter().map(|value| (value.as_str(), value.as_str()))
    };
}

mod artifact;
mod audit;
mod clock;
mod deployment;
pub mod entity;
mod environment;
pub mod migration;
mod operation;
mod page;
mod plan;
mod prelude;
mod project;
mod resource;
mod retention;
mod run;
mod secret;
pub(crate) mod timer;

use std::collections::BTreeMap;
use std::sync::Arc;

use pavior_core::clock::Clock;
use pavior_core::id_gen::IdGen;
use pavior_store::outbox::{History, Limits, OutboxContext};
use pavior_store::{Recorded, Store, Tx, TxFuture};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, Select, Statement, UpdateMany, Value,
};
use time::OffsetDateTime;

use crate::domain::state::Lifecycle;
use crate::error::{Error, Result};

pub use audit::{Caller, Refusal, denied_event, planned_event, refused_event};
pub use operation::accept::{
    Accepted, Admission, Makes, NewEnvironment, NewOperation, NewProject, Ownership, Seen,
};
pub use operation::aggregate::OperationView;
pub use operation::approve::Waiter;
pub use operation::claim::{Claim, ClaimParams, Purpose, StepRef};
pub use operation::complete::Completed;
pub use operation::completion::{Applied, Completion, RetryAfter, RunResult, StepError};
pub use operation::health::Waiting;
pub use operation::log::{LogChunk, LogLine};
pub use operation::read::UnderWay;
pub use operation::restore::unknown_unscoped;
pub use operation::retry::{Checked, TakeUp};
pub use page::Page;
pub use plan::{NewPlan, StoredPlan};
pub use resource::ResourceRecord;
pub use retention::{Retention, Swept};
pub use secret::Sealed;

/// The database of provisioning. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdGen>,
    pub(crate) outbox: Arc<OutboxContext>,
    steady: clock::Steady,
    /// Called inside of the transaction of a completed step, right before its commit. Tests let the worker die here.
    pub(crate) before_commit: Option<BeforeCommit>,
}

/// Answers whether to die.
#[derive(Clone)]
pub struct BeforeCommit(pub Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl std::fmt::Debug for BeforeCommit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BeforeCommit")
    }
}

/// Until the commit no other transaction gets past this for the same subject. SQLite has one writer at a time anyway.
pub(crate) async fn one_at_a_time(tx: &Tx, what: &str, subject: &str) -> Result<()> {
    if tx.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let sql = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
    let values = [format!("{what}/{subject}").into()];
    tx.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, values)).await?;
    Ok(())
}

/// Moves rows to the state that an event leads to, those in which it is possible.
async fn advance<E: EntityTrait, S: Lifecycle + Into<Value>>(
    tx: &Tx,
    rows: UpdateMany<E>,
    state: E::Column,
    event: S::Event,
) -> Result<()> {
    let (after, from) = S::transition(event);
    rows.col_expr(state, Expr::value(after)).filter(state.is_in(from.iter().copied())).exec(tx).await?;
    Ok(())
}

/// Rows of one statement: both databases bound the number of its values.
pub(crate) const ROWS_AT_ONCE: usize = 200;

/// Role of this service in the outbox.
pub const SERVICE: &str = "provisioning";

impl Db {
    /// Over a migrated store.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdGen>,
        instance: &str,
        limits: Limits,
    ) -> Self {
        let mut outbox = OutboxContext::new(&store, SERVICE, instance, clock.clone());
        outbox.limits = limits;
        let outbox = Arc::new(outbox);
        let steady = clock::Steady::new(clock.as_ref());
        Self { store, clock, ids, outbox, steady, before_commit: None }
    }

    /// The selected rows, as the domain has them.
    async fn all<E: EntityTrait, T: From<E::Model>>(&self, rows: Select<E>) -> Result<Vec<T>> {
        Ok(rows.all(self.store.read()).await?.into_iter().map(T::from).collect())
    }

    /// The first of them.
    async fn one<E: EntityTrait, T: From<E::Model>>(&self, rows: Select<E>) -> Result<Option<T>> {
        Ok(rows.one(self.store.read()).await?.map(T::from))
    }

    /// Changes tenant data, see [`Store::change`]; `work` may run several times, with the same `input`.
    async fn change<I, T, W>(&self, input: I, work: W) -> Result<T>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        W: for<'c> Fn(&'c Self, &'c Tx, &'c I) -> TxFuture<'c, Recorded<T>, Error> + Send + Sync + 'static,
    {
        let shared = Arc::new((self.clone(), input, work));
        self.store
            .change(&self.outbox, move |tx| {
                let shared = shared.clone();
                Box::pin(async move {
                    let (this, input, work) = &*shared;
                    work(this, tx, input).await
                })
            })
            .await
    }

    /// Writes the service's own bookkeeping, see [`Store::upkeep`]; otherwise as a change.
    async fn upkeep<I, T, W>(&self, what: &'static str, input: I, work: W) -> Result<T>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        W: for<'c> Fn(&'c Self, &'c Tx, &'c I) -> TxFuture<'c, T, Error> + Send + Sync + 'static,
    {
        let shared = Arc::new((self.clone(), input, work));
        Store::upkeep(&self.store, what, move |tx| {
            let shared = shared.clone();
            Box::pin(async move {
                let (this, input, work) = &*shared;
                work(this, tx, input).await
            })
        })
        .await
    }

    /// The store below, for the outbox relay and health.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What is known of the histories of this database and of the audit log.
    pub fn history(&self) -> &History {
        self.store.history()
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    pub(crate) fn now_micros(&self) -> i64 {
        pavior_store::micros(self.clock.now())
    }
}

impl From<sea_orm::DbErr> for Error {
    fn from(error: sea_orm::DbErr) -> Self {
        Self::Store(error.into())
    }
}

/// What belongs to the same key, in its order.
fn grouped<K: Ord, V>(all: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, Vec<V>> {
    let mut groups: BTreeMap<K, Vec<V>> = BTreeMap::new();
    for (key, value) in all {
        groups.entry(key).or_default().push(value);
    }
    groups
}

/// What must be there.
pub(crate) fn found<T>(row: Option<T>, kind: &'static str, name: &str) -> Result<T> {
    row.ok_or_else(|| Error::NotFound { kind, name: name.to_owned() })
}
