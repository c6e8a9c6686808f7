//! What a driver names is looked up by its name.

use sea_orm_migration::prelude::*;

/// The migration.
#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Whatever is looked up by the driver alone is found by the same.
        let by_driver = Index::drop().name("resource_driver_idx").table("resource").to_owned();
        manager.drop_index(by_driver).await?;
        let by_identity = Index::create()
            .name("resource_identity_idx")
            .table("resource")
            .col("driver")
            .col("identity")
            .to_owned();
        manager.create_index(by_identity).await
    }
}
