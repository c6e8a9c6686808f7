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
        let indexes: [(&str, &[&str]); 2] = [
            ("plan_requester_idx", &["organization", "requester", "expire_time"]),
            ("plan_expire_time_idx", &["expire_time"]),
        ];
        for (name, columns) in indexes {
            let mut index = Index::create().name(name).table("plan").to_owned();
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index).await?;
        }
        Ok(())
    }
}
