//! Losses that an operator accepted.

use sea_orm::{ConnectionTrait as _, DbBackend};
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLE: &str = "CREATE TABLE audit_accepted (
    log {text} PRIMARY KEY, generation BIGINT NOT NULL, tree_size BIGINT NOT NULL, root_hash {blob},
    absent BIGINT NOT NULL, note {text})";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let (text, blob) = match manager.get_database_backend() {
            DbBackend::Postgres => ("TEXT COLLATE \"C\" NOT NULL", "BYTEA NOT NULL"),
            _ => ("TEXT NOT NULL", "BLOB NOT NULL"),
        };
        let sql = TABLE.replace("{text}", text).replace("{blob}", blob);
        manager.get_connection().execute_unprepared(&sql).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DROP TABLE audit_accepted").await?;
        Ok(())
    }
}
