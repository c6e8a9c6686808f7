//! What a run was asked for, why it was begun and why it failed; when an environment is taken down by the word of a request.

use sea_orm_migration::prelude::*;

/// The migration.
#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in ["revision", "cause"] {
            let mut text = ColumnDef::new(column).text().not_null().default("").to_owned();
            manager.alter_table(Table::alter().table("run").add_column(&mut text).to_owned()).await?;
        }
        let mut error = ColumnDef::new("error").json_binary().null().to_owned();
        manager.alter_table(Table::alter().table("run").add_column(&mut error).to_owned()).await
    }
}
