//! The decisions that an approval is about, and the author of its plan.

use sea_orm_migration::prelude::*;

/// The migration.
#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut decisions = ColumnDef::new("decisions").text().not_null().default("[]").to_owned();
        let table = Table::alter().table("approvals").add_column(&mut decisions).to_owned();
        manager.alter_table(table).await?;
        let mut author = ColumnDef::new("author").text().not_null().default("").to_owned();
        manager.alter_table(Table::alter().table("approvals").add_column(&mut author).to_owned()).await
    }
}
