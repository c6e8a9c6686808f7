//! What a kept plan is about, until when it can be carried out, and by which operation it was.

use sea_orm_migration::prelude::*;

/// The migration.
#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = [
            ColumnDef::new("intent").blob().null().to_owned(),
            ColumnDef::new("expire_time").timestamp_with_time_zone().null().to_owned(),
            ColumnDef::new("operation").text().null().to_owned(),
        ];
        for mut column in columns {
            manager.alter_table(Table::alter().table("plan").add_column(&mut column).to_owned()).await?;
        }
        let waiting = Index::create()
            .name("plan_expire_time_idx")
            .table("plan")
            .col("organization")
            .col("requester")
            .col("expire_time")
            .to_owned();
        manager.create_index(waiting).await
    }
}
