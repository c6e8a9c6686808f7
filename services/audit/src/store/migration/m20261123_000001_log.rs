//! The log: records, tiles, heads, checkpoints and producers.

use sea_orm::{ConnectionTrait as _, DbBackend};
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// What is looked for. Each index goes on by place in the log, so that a page of a filtered list is a range of it.
const SEARCHED: [&str; 15] = [
    "principal",
    "on_behalf_of",
    "target",
    "target_type",
    "project",
    "action",
    "audit_class",
    "effect",
    "status",
    "call_id",
    "request_id",
    "operation",
    "event_id",
    "event_time",
    "receive_time",
];

const TABLES: [&str; 5] = [
    "CREATE TABLE audit_record (
        log {text}, idx BIGINT NOT NULL, leaf_hash {blob}, body {blob}, body_bytes BIGINT NOT NULL,
        event_id {text}, receive_time BIGINT NOT NULL, event_time BIGINT NOT NULL, audit_class {text},
        action {text}, principal {text}, on_behalf_of {text}, target {text}, target_type {text}, project {text}, effect {text},
        status {text}, call_id {text}, request_id {text}, operation {text}, service {text}, epoch {text},
        seq BIGINT NOT NULL,
        PRIMARY KEY (log, idx), UNIQUE (service, epoch, seq))",
    "CREATE TABLE audit_tile (
        log {text}, level INTEGER NOT NULL, idx BIGINT NOT NULL, width INTEGER NOT NULL, hashes {blob},
        PRIMARY KEY (log, level, idx))",
    "CREATE TABLE audit_head (
        log {text} PRIMARY KEY, origin {text}, tree_size BIGINT NOT NULL, root_hash {blob})",
    "CREATE TABLE audit_checkpoint (
        log {text} PRIMARY KEY, tree_size BIGINT NOT NULL, root_hash {blob}, note {text}, verifier_key {text},
        sign_time BIGINT NOT NULL)",
    "CREATE TABLE audit_producer (
        service {text}, epoch {text}, last_seq BIGINT NOT NULL,
        PRIMARY KEY (service, epoch))",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = manager.get_database_backend() == DbBackend::Postgres;
        // Text is compared by bytes everywhere, so the columns say so and their indexes serve it.
        let text = if postgres { "TEXT COLLATE \"C\" NOT NULL" } else { "TEXT NOT NULL" };
        let blob = if postgres { "BYTEA NOT NULL" } else { "BLOB NOT NULL" };
        let db = manager.get_connection();
        for table in TABLES {
            db.execute_unprepared(&table.replace("{text}", text).replace("{blob}", blob)).await?;
        }
        for column in SEARCHED {
            let sql = format!("CREATE INDEX audit_record_{column} ON audit_record (log, {column}, idx)");
            db.execute_unprepared(&sql).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["audit_record", "audit_tile", "audit_head", "audit_checkpoint", "audit_producer"] {
            manager.get_connection().execute_unprepared(&format!("DROP TABLE {table}")).await?;
        }
        Ok(())
    }
}
