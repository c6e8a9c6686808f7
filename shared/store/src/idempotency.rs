//! The first answer to a request id, kept in the transaction that made it (AIP-155).
//!
//! ```ignore
//! if let Some(answer) = idempotency::check(tx, &key, &hash).await? { return Ok(decode(answer)); }
//! … // the change itself
//! idempotency::save(tx, &key, &hash, &encode(answer)).await?;
//! ```

use crate::{ErrorKind, Retryable, Store, StoreError, micros};
use pavior_core::clock::{Clock as _, SystemClock};
use sea_orm::{ConnectionTrait, Statement};
use sea_orm_migration::prelude::{
    ColumnDef, DbErr, Index, MigrationName, MigrationTrait, SchemaManager, Table,
};
use std::time::Duration;
use time::OffsetDateTime;

/// How long an answer is kept at least.
pub const KEEP: Duration = Duration::from_secs(24 * 3_600);

/// Whose request it was. Two principals never share an answer, nor do two methods.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Id of the organization.
    pub organization: String,
    /// Resource name of the principal.
    pub principal: String,
    /// Full method name, such as `/pavior.catalog.v1.CatalogService/CreateComponent`.
    pub method: String,
    /// The caller's UUID.
    pub request_id: String,
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
    let Key { organization, principal, method, request_id } = key.clone();
    let values = [organization, principal, method, request_id].map(sea_orm::Value::from);
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    let Some(row) = tx.query_one_raw(statement).await.map_err(StoreError::from)? else { return Ok(None) };
    let first: Vec<u8> = row.try_get("", "hash").map_err(StoreError::from)?;
    if first != hash {
        return Err(IdempotencyError::Reused);
    }
    Ok(Some(row.try_get("", "response").map_err(StoreError::from)?))
}

/// Keeps the answer. If the same request was answered concurrently, the error is retryable, so that [`Store::tx`]
/// starts over and [`check`] finds the first answer.
pub async fn save<C: ConnectionTrait>(
    tx: &C,
    key: &Key,
    hash: &[u8],
    response: &[u8],
) -> Result<(), StoreError> {
    // Only for the sweep; no decision rests on it.
    save_at(tx, key, hash, response, SystemClock.now()).await
}

/// The same at a given time.
pub async fn save_at<C: ConnectionTrait>(
    tx: &C,
    key: &Key,
    hash: &[u8],
    response: &[u8],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO idempotency (organization, principal, method, request_id, hash, response, create_time) \
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let Key { organization, principal, method, request_id } = key.clone();
    let values: [sea_orm::Value; 7] = [
        organization.into(),
        principal.into(),
        method.into(),
        request_id.into(),
        hash.to_vec().into(),
        response.to_vec().into(),
        micros(now).into(),
    ];
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    match tx.execute_raw(statement).await.map_err(StoreError::from) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Unique => Err(StoreError::Concurrent),
        Err(error) => Err(error),
    }
}

/// Deletes answers that are older than 24 hours and says how many. Call it every hour or so.
pub async fn sweep(store: &Store, now: OffsetDateTime) -> Result<u64, StoreError> {
    let before = micros(now).saturating_sub(i64::try_from(KEEP.as_micros()).unwrap_or(i64::MAX));
    store
        .tx(|tx| {
            Box::pin(async move {
                let sql = "DELETE FROM idempotency WHERE create_time < $1";
                let statement =
                    Statement::from_sql_and_values(tx.get_database_backend(), sql, [before.into()]);
                Ok::<_, StoreError>(tx.execute_raw(statement).await?.rows_affected())
            })
        })
        .await
}

/// The migration that makes the table; put it into the service's list.
pub fn migration() -> Box<dyn MigrationTrait> {
    Box::new(CreateIdempotency)
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
