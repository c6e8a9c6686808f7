//! The first answer to a request id, kept in the transaction that made it (AIP-155), together with what policy knew of
//! the target at that moment: a repetition must be decided on as the first call was, and by then the target may be gone
//! or somebody else's.
//!
//! ```text
//! if let Some(first) = idempotency::check(tx, &key, &hash).await? { return Ok(Recorded::unchanged(decode(first))); }
//! let facts = …; // of the target, before the change
//! … // the change itself
//! Ok(Recorded::new(answer, event).answering(Some(Kept { key, hash, response, facts, time })))
//! ```

use crate::{ErrorKind, Retryable, Store, StoreError, Tx, micros};
use sea_orm::{ConnectionTrait, Statement};
use sea_orm_migration::prelude::{
    ColumnDef, DbErr, Index, MigrationName, MigrationTrait, SchemaManager, Table,
};
use std::time::Duration;
use time::OffsetDateTime;

/// How long an answer is kept at least.
pub const KEEP: Duration = Duration::from_secs(24 * 3_600);
/// How much longer than its facts are answered: a call that was let in by them still finds its answer.
const MARGIN: Duration = Duration::from_secs(3_600);

/// Whose request it was. Two principals never share an answer, nor do two methods.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    organization: String,
    principal: String,
    method: String,
    request_id: String,
}

impl Key {
    /// The id of the organization, who asks ([`asker`](pavior_core::Principal::asker)), the full method name such as
    /// `/pavior.catalog.v1.CatalogService/CreateEntity`, and the caller's UUID, in whichever case it was written.
    pub fn new(organization: &str, principal: &str, method: &str, request_id: &str) -> Self {
        Self {
            organization: organization.to_owned(),
            principal: principal.to_owned(),
            method: method.to_owned(),
            request_id: request_id.to_ascii_lowercase(),
        }
    }

    /// The caller's UUID in lower case.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    fn values(&self) -> [sea_orm::Value; 4] {
        let Self { organization, principal, method, request_id } = self.clone();
        [organization, principal, method, request_id].map(sea_orm::Value::from)
    }
}

/// Why a request cannot be answered from memory.
#[derive(Debug, thiserror::Error)]
pub enum IdempotencyError {
    /// The id was used before with another request.
    #[error("request id was used before with different content")]
    Reused,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Retryable for IdempotencyError {
    fn is_retryable(&self) -> bool {
        matches!(self, IdempotencyError::Store(error) if error.is_retryable())
    }
}

/// The first answer to the same request, if there was one. `hash` is over the request's content.
pub async fn check<C: ConnectionTrait>(
    tx: &C,
    key: &Key,
    hash: &[u8],
) -> Result<Option<Vec<u8>>, IdempotencyError> {
    let sql = "SELECT hash, response FROM idempotency \
               WHERE organization = $1 AND principal = $2 AND method = $3 AND request_id = $4";
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, key.values());
    let Some(row) = tx.query_one_raw(statement).await.map_err(StoreError::from)? else { return Ok(None) };
    let first: Vec<u8> = row.try_get("", "hash").map_err(StoreError::from)?;
    if first != hash {
        return Err(IdempotencyError::Reused);
    }
    Ok(Some(row.try_get("", "response").map_err(StoreError::from)?))
}

/// What was known of the target when the first answer was made, see [`Kept`]; `None` where nothing was
/// kept, or too long ago at `now`. No content is compared: a request of other content is refused by [`check`].
pub async fn facts<C: ConnectionTrait>(
    connection: &C,
    key: &Key,
    now: OffsetDateTime,
) -> Result<Option<Vec<u8>>, StoreError> {
    let sql = "SELECT facts FROM idempotency \
               WHERE organization = $1 AND principal = $2 AND method = $3 AND request_id = $4 AND create_time >= $5";
    let values = key.values().into_iter().chain([before(now, KEEP).into()]);
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    match connection.query_one_raw(statement).await? {
        Some(row) => Ok(row.try_get("", "facts")?),
        None => Ok(None),
    }
}

/// An answer to be kept for a request id; see [`Recorded::answering`](crate::Recorded::answering).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Whose request it was.
    pub key: Key,
    /// Over the request's content.
    pub hash: Vec<u8>,
    /// The answer.
    pub response: Vec<u8>,
    /// What policy knew of the target, as it was before the change.
    pub facts: Vec<u8>,
    /// When; only for the sweep and the age of facts.
    pub time: OffsetDateTime,
}

/// Keeps the answer. If the same request was answered concurrently, the error is retryable, so that
/// [`Store::change`] starts over and [`check`] finds the first answer.
pub(crate) async fn keep(tx: &Tx, kept: &Kept) -> Result<(), StoreError> {
    let sql = "INSERT INTO idempotency \
               (organization, principal, method, request_id, hash, response, facts, create_time) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let Kept { key, hash, response, facts, time } = kept.clone();
    let kept: [sea_orm::Value; 4] = [hash.into(), response.into(), facts.into(), micros(time).into()];
    let values = key.values().into_iter().chain(kept);
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    match tx.execute_raw(statement).await.map_err(StoreError::from) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Unique => Err(StoreError::Concurrent),
        Err(error) => Err(error),
    }
}

fn before(now: OffsetDateTime, age: Duration) -> i64 {
    micros(now).saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
}

/// Deletes answers that are older than 25 hours and says how many. Call it every hour or so.
pub async fn sweep(store: &Store, now: OffsetDateTime) -> Result<u64, StoreError> {
    let before = before(now, KEEP + MARGIN);
    store
        .upkeep("answers that are old enough to be forgotten", move |tx| {
            Box::pin(async move {
                let sql = "DELETE FROM idempotency WHERE create_time < $1";
                let statement =
                    Statement::from_sql_and_values(tx.get_database_backend(), sql, [before.into()]);
                Ok::<_, StoreError>(tx.execute_raw(statement).await?.rows_affected())
            })
        })
        .await
}

/// The migrations that make the table; put them into the service's list.
pub fn migrations() -> Vec<Box<dyn MigrationTrait>> {
    vec![Box::new(CreateIdempotency), Box::new(AddFacts)]
}

struct CreateIdempotency;

impl MigrationName for CreateIdempotency {
    fn name(&self) -> &str {
        "pavior_store_idempotency_1"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for CreateIdempotency {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table("idempotency")
            .col(ColumnDef::new("organization").text().not_null())
            .col(ColumnDef::new("principal").text().not_null())
            .col(ColumnDef::new("method").text().not_null())
            .col(ColumnDef::new("request_id").text().not_null())
            .col(ColumnDef::new("hash").binary().not_null())
            .col(ColumnDef::new("response").binary().not_null())
            .col(ColumnDef::new("create_time").big_integer().not_null())
            .primary_key(Index::create().col("organization").col("principal").col("method").col("request_id"))
            .to_owned();
        manager.create_table(table).await?;
        let index = Index::create()
            .name("idempotency_create_time")
            .table("idempotency")
            .col("create_time")
            .to_owned();
        manager.create_index(index).await
    }
}

struct AddFacts;

impl MigrationName for AddFacts {
    fn name(&self) -> &str {
        "pavior_store_idempotency_2"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for AddFacts {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let facts = ColumnDef::new("facts").binary().null().to_owned();
        manager.alter_table(Table::alter().table("idempotency").add_column(facts).to_owned()).await
    }
}
