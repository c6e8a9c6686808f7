//! What a log that is held must show to be let go.

use sea_orm::{ConnectionTrait as _, DbBackend};
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const COLUMNS: [&str; 3] = ["signed_size BIGINT", "signed_root {blob}", "tile BIGINT"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let blob = if manager.get_database_backend() == DbBackend::Postgres { "BYTEA" } else { "BLOB" };
        for column in COLUMNS {
            let sql = format!("ALTER TABLE audit_held ADD COLUMN {}", column.replace("{blob}", blob));
            manager.get_connection().execute_unprepared(&sql).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in ["signed_size", "signed_root", "tile"] {
            let sql = format!("ALTER TABLE audit_held DROP COLUMN {column}");
            manager.get_connection().execute_unprepared(&sql).await?;
        }
        Ok(())
    }
}
