//! Logs that are held because they are damaged, and the events that wait for their repair.

use sea_orm::{ConnectionTrait as _, DbBackend};
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const STATEMENTS: [&str; 3] = [
    "CREATE TABLE audit_held (
        log {text} PRIMARY KEY, why {text}, records BIGINT NOT NULL, bytes BIGINT NOT NULL)",
    "CREATE TABLE audit_parked (
        arrival {number}, log {text}, service {text}, epoch {text}, seq BIGINT NOT NULL, event_id {text},
        leaf_hash {blob}, body_bytes BIGINT NOT NULL, body {blob},
        UNIQUE (service, epoch, seq))",
    "CREATE INDEX audit_parked_log ON audit_parked (log, arrival)",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let (text, blob, number) = match manager.get_database_backend() {
            DbBackend::Postgres => ("TEXT COLLATE \"C\" NOT NULL", "BYTEA NOT NULL", "BIGSERIAL PRIMARY KEY"),
            _ => ("TEXT NOT NULL", "BLOB NOT NULL", "INTEGER PRIMARY KEY AUTOINCREMENT"),
        };
        let db = manager.get_connection();
        for statement in STATEMENTS {
            let sql = statement.replace("{text}", text).replace("{blob}", blob).replace("{number}", number);
            db.execute_unprepared(&sql).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["audit_parked", "audit_held"] {
            manager.get_connection().execute_unprepared(&format!("DROP TABLE {table}")).await?;
        }
        Ok(())
    }
}
