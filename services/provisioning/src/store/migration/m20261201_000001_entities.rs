//! Entities of the catalog are recorded with their uid, which tells one from a later one of its name.

use sea_orm::{ConnectionTrait as _, Statement};
use sea_orm_migration::prelude::*;
use serde_json::Value as Json;
use uuid::Uuid;

/// The migration.
#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let (connection, backend) = (manager.get_connection(), manager.get_database_backend());
        let sql = "SELECT \"name\", \"identity\", \"outputs\" FROM \"resource\" \
                   WHERE \"driver\" = 'catalog-entity' AND \"identity\" <> ''";
        for row in connection.query_all_raw(Statement::from_string(backend, sql)).await? {
            let (name, identity): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            let outputs: Json = row.try_get_by_index(2)?;
            let Some(uid) = outputs["uid"].as_str().filter(|_| !identity.contains('#')) else { continue };
            let sql = "UPDATE \"resource\" SET \"identity\" = $1 WHERE \"name\" = $2";
            let values = [format!("{identity}#{uid}").into(), name.into()];
            connection.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
        }
        // What an operation that is under way puts back is recorded with its step.
        let sql = "SELECT \"operation\", \"name\", \"prior\" FROM \"step\" WHERE \"prior\" IS NOT NULL";
        for row in connection.query_all_raw(Statement::from_string(backend, sql)).await? {
            let (operation, name): (Uuid, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            let mut prior: Json = row.try_get_by_index(2)?;
            let identity = prior["identity"].as_str().unwrap_or_default();
            let is_entity = identity.contains("/entities/") && !identity.contains('#');
            let Some(uid) = prior["outputs"]["uid"].as_str().filter(|_| is_entity) else { continue };
            prior["identity"] = format!("{identity}#{uid}").into();
            let sql = "UPDATE \"step\" SET \"prior\" = $1 WHERE \"operation\" = $2 AND \"name\" = $3";
            let values = [prior.into(), operation.into(), name.into()];
            connection.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
        }
        Ok(())
    }
}
