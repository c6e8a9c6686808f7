//! Entities that are made for resources are found among all organizations' through an index of their own, in order of
//! their names. What was made before gets its entry here.

use sea_orm::{ConnectionTrait as _, DbBackend};
use sea_orm_migration::async_trait;
use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager};

/// See the module's text.
#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let managed = match manager.get_database_backend() {
            DbBackend::Postgres => r#"jsonb_exists("annotations", 'pavior.dev/resource')"#,
            _ => r#"json_type("annotations", '$."pavior.dev/resource"') IS NOT NULL"#,
        };
        let fill = format!(
            "INSERT INTO \"entity_facets\" (\"entity\", \"name\", \"value\", \"organization\") \
             SELECT \"uid\", 'managed', \
             'organizations/' || \"organization\" || '/kinds/' || \"kind\" || '/entities/' || \"id\", \
             \"organization\" FROM \"entities\" WHERE {managed}"
        );
        connection.execute_unprepared(&fill).await?;
        let index = "CREATE INDEX \"entity_facets_managed\" ON \"entity_facets\" (\"value\") \
                     WHERE \"name\" = 'managed'";
        connection.execute_unprepared(index).await?;
        Ok(())
    }
}
