//! What was under way when the database was set back is told apart from what got stuck by itself.

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use sea_orm_migration::prelude::*;
use serde_json::Value as Json;
use uuid::Uuid;

/// The migration.
#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let parked = Table::alter().table("operation").add_column(ColumnDef::new("parked").uuid()).to_owned();
        manager.alter_table(parked).await?;
        // What a restore has held up before says so in its error.
        let (connection, backend) = (manager.get_connection(), manager.get_database_backend());
        let sql =
            "SELECT \"id\", \"error\" FROM \"operation\" WHERE \"state\" = 'STUCK' AND \"error\" IS NOT NULL";
        for row in connection.query_all_raw(Statement::from_string(backend, sql)).await? {
            let (id, error): (Uuid, Json) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            if error["code"] == "RESTORED" {
                park(manager, backend, id).await?;
            }
        }
        Ok(())
    }
}

async fn park(manager: &SchemaManager<'_>, backend: DbBackend, id: Uuid) -> Result<(), DbErr> {
    let sql = "UPDATE \"operation\" SET \"parked\" = $1 WHERE \"id\" = $2";
    // Any other id does: its complement is nobody's.
    let values = [Uuid::from_u128(!id.as_u128()).into(), id.into()];
    let statement = Statement::from_sql_and_values(backend, sql, values);
    manager.get_connection().execute_raw(statement).await.map(drop)
}
