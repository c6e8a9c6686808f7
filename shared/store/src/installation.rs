//! Who a database belongs to: the installation, the service, and the keys that fit to what is stored.
//!
//! A database that was swapped for another, an older one of another installation, or an empty one, works: it answers
//! and takes writes. Only what it says of itself tells, so every database says it, and it is read before anything is
//! changed.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbErr, Statement, Value};
use sea_orm_migration::prelude::{ColumnDef, MigrationName, MigrationTrait, SchemaManager, Table};

use crate::Tx;
use crate::{Store, StoreError};

/// What a database says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The id of the installation.
    pub installation: String,
    /// The service whose database it is.
    pub role: String,
    /// False until every database of the first start has been claimed.
    pub established: bool,
    /// Check values of the keys that were used with it, by the name of the key.
    pub keys: BTreeMap<String, String>,
}

/// A database as it was found, before anything is changed in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// It has tables.
    pub has_schema: bool,
    /// A change was made in it.
    pub has_history: bool,
    /// What it says of itself; absent in one that is new, or older than claims are.
    pub claim: Option<Claim>,
}

impl Survey {
    /// Whether it is in use: keys that are missing must not be made anew beside it.
    pub fn in_use(&self) -> bool {
        self.has_history || self.claim.as_ref().is_some_and(|claim| claim.established)
    }

    /// Whether it holds nothing and belongs to nobody.
    pub fn is_empty(&self) -> bool {
        self.claim.is_none() && !self.has_history
    }
}

/// Looks at a database, whatever is in it, and changes nothing.
pub async fn survey(store: &Store) -> Result<Survey, StoreError> {
    let db = store.read();
    let manager = SchemaManager::new(db);
    let has_schema = manager.has_table("seaql_migrations").await?;
    let mut survey = Survey { has_schema, ..Survey::default() };
    if manager.has_table("outbox_epoch").await? {
        survey.has_history = !query(db, "SELECT service FROM outbox_epoch LIMIT 1", vec![]).await?.is_empty();
    }
    if !manager.has_table("installation").await? {
        return Ok(survey);
    }
    let sql = "SELECT id, role, established FROM installation LIMIT 1";
    if let Some(row) = query(db, sql, vec![]).await?.first() {
        let mut keys = BTreeMap::new();
        for row in query(db, "SELECT name, value FROM key_check", vec![]).await? {
            keys.insert(row.try_get("", "name")?, row.try_get("", "value")?);
        }
        survey.claim = Some(Claim {
            installation: row.try_get("", "id")?,
            role: row.try_get("", "role")?,
            established: row.try_get("", "established")?,
            keys,
        });
    }
    Ok(survey)
}

async fn query(
    db: &impl ConnectionTrait,
    sql: &str,
    values: Vec<Value>,
) -> Result<Vec<sea_orm::QueryResult>, DbErr> {
    db.query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await
}

/// Writes down who the database belongs to and which keys fit; what was there is replaced. The caller has looked at
/// [`survey`] first.
pub async fn claim(store: &Store, claim: Claim) -> Result<(), StoreError> {
    store
        .upkeep("whose the database is", move |tx| {
            let claim = claim.clone();
            Box::pin(async move { write(tx, claim).await })
        })
        .await
}

async fn write(tx: &Tx, claim: Claim) -> Result<(), StoreError> {
    let backend = tx.get_database_backend();
    let run = async |sql: &str, values: Vec<Value>| {
        tx.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await
    };
    let Claim { installation, role, established, keys } = claim;
    run("DELETE FROM installation", vec![]).await?;
    run(
        "INSERT INTO installation (role, id, established) VALUES ($1, $2, $3)",
        vec![role.into(), installation.into(), established.into()],
    )
    .await?;
    for (name, value) in keys {
        let sql = "INSERT INTO key_check (name, value) VALUES ($1, $2) \
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        run(sql, vec![name.into(), value.into()]).await?;
    }
    Ok(())
}

/// The migration that makes the tables; put it into the service's list.
pub fn migration() -> Box<dyn MigrationTrait> {
    Box::new(CreateInstallation)
}

struct CreateInstallation;

impl MigrationName for CreateInstallation {
    fn name(&self) -> &str {
        "pavior_store_installation_1"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for CreateInstallation {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let text = |name: &'static str| ColumnDef::new(name).text().not_null().to_owned();
        let installation = Table::create()
            .table("installation")
            .col(text("role").primary_key())
            .col(text("id"))
            .col(ColumnDef::new("established").boolean().not_null())
            .to_owned();
        manager.create_table(installation).await?;
        let keys =
            Table::create().table("key_check").col(text("name").primary_key()).col(text("value")).to_owned();
        manager.create_table(keys).await
    }
}
