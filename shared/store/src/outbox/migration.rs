//! The tables of the outbox.

use sea_orm_migration::prelude::{
    Alias, ColumnDef, DbErr, Index, MigrationName, MigrationTrait, SchemaManager, Table,
};

/// The migrations that make the tables, in order; put them into the service's list.
pub fn migrations() -> Vec<Box<dyn MigrationTrait>> {
    vec![Box::new(CreateOutbox), Box::new(CountByOrganization)]
}

struct CreateOutbox;

impl MigrationName for CreateOutbox {
    fn name(&self) -> &str {
        "pavior_store_outbox_1"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for CreateOutbox {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let epochs = Table::create()
            .table("outbox_epoch")
            .col(ColumnDef::new("service").text().not_null().primary_key())
            .col(ColumnDef::new("epoch").big_integer().not_null())
            .col(ColumnDef::new("last_seq").big_integer().not_null())
            .to_owned();
        manager.create_table(epochs).await?;
        let rows = Table::create()
            .table("outbox")
            .col(ColumnDef::new("service").text().not_null())
            .col(ColumnDef::new("epoch").big_integer().not_null())
            .col(ColumnDef::new("seq").big_integer().not_null())
            .col(ColumnDef::new("instance").text().not_null())
            .col(ColumnDef::new("create_time").big_integer().not_null())
            .col(ColumnDef::new("event").text().not_null())
            .primary_key(Index::create().col("service").col("epoch").col("seq"))
            .to_owned();
        manager.create_table(rows).await
    }
}

/// What waits is counted for each organization. Two tables, because appending and delivering must not wait for one
/// another: each adds to its own.
struct CountByOrganization;

impl MigrationName for CountByOrganization {
    fn name(&self) -> &str {
        "pavior_store_outbox_2"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for CountByOrganization {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // One column at a time: SQLite knows no other way.
        for column in [
            ColumnDef::new("organization").text().not_null().default("").take(),
            ColumnDef::new("bytes").big_integer().not_null().default(0).take(),
        ] {
            manager.alter_table(Table::alter().table("outbox").add_column(column).to_owned()).await?;
        }
        for table in ["outbox_appended", "outbox_delivered"] {
            let counts = Table::create()
                .table(Alias::new(table))
                .col(ColumnDef::new("service").text().not_null())
                .col(ColumnDef::new("organization").text().not_null())
                .col(ColumnDef::new("events").big_integer().not_null())
                .col(ColumnDef::new("bytes").big_integer().not_null())
                .primary_key(Index::create().col("service").col("organization"))
                .to_owned();
            manager.create_table(counts).await?;
        }
        Ok(())
    }
}
