//! That a replacement has taken the former thing down, and what else is looked up.

use sea_orm_migration::prelude::*;

/// The migration.
#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

/// Name, table and columns of each index.
const INDEXES: [(&str, &str, &[&str]); 10] = [
    ("project_organization_idx", "project", &["organization", "name"]),
    ("project_operation_idx", "project", &["operation"]),
    ("environment_operation_idx", "environment", &["operation"]),
    ("run_operation_idx", "run", &["operation"]),
    ("run_project_idx", "run", &["project", "state", "create_time"]),
    ("deployment_operation_idx", "deployment", &["operation"]),
    ("deployment_project_idx", "deployment", &["project"]),
    ("deployment_run_idx", "deployment", &["run"]),
    ("resource_environment_idx", "resource", &["environment"]),
    ("resource_driver_idx", "resource", &["driver"]),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut gone = ColumnDef::new("former_gone").boolean().not_null().default(false).to_owned();
        manager.alter_table(Table::alter().table("step").add_column(&mut gone).to_owned()).await?;
        for (name, table, columns) in INDEXES {
            let mut index = Index::create().name(name).table(table).to_owned();
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index).await?;
        }
        Ok(())
    }
}
