//! What the health check writes.

use crate::tx::Tx;
use sea_orm::{ConnectionTrait as _, DbBackend, DbErr};

/// A table of one row, of the store's own. The constraint of SQLite's integer keys needs no migration.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS store_health \
    (id INTEGER PRIMARY KEY CHECK (id = 1), checks INTEGER NOT NULL, filler BLOB NOT NULL)";
/// Takes fresh pages and gives them back, so that a full disk is found before the last page is used up.
const WRITE: [&str; 2] = [
    "INSERT INTO store_health (id, checks, filler) VALUES (1, 1, zeroblob(16384)) \
     ON CONFLICT (id) DO UPDATE SET checks = checks + 1, filler = zeroblob(16384)",
    "UPDATE store_health SET filler = x'' WHERE id = 1",
];

/// Makes the table, on SQLite.
pub(crate) async fn prepare(tx: &Tx) -> Result<(), DbErr> {
    tx.begin_sqlite().await?;
    tx.execute_unprepared(TABLE).await?;
    match tx.commit_sqlite().await {
        crate::tx::Committed::Yes => Ok(()),
        crate::tx::Committed::No(error) | crate::tx::Committed::Unknown(error) => Err(error),
    }
}

/// Writes something that is lost without harm. On PostgreSQL a message in the log of the server, which has to be
/// flushed by the commit as any change has.
pub(crate) async fn write(tx: &Tx) -> Result<(), DbErr> {
    match tx.get_database_backend() {
        DbBackend::Sqlite => {
            for statement in WRITE {
                tx.execute_unprepared(statement).await?;
            }
            Ok(())
        }
        _ => {
            tx.execute_unprepared("SELECT pg_logical_emit_message(true, 'pavior', 'health')").await.map(drop)
        }
    }
}
