//! Lists over all projects of an organization, and over all environments or pipelines of a project.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend};

/// The migration.
#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

/// Name, table and columns of each index. With the organization in each of them, a list below one parent is found by that
/// parent rather than by its organization.
const INDEXES: [(&str, &str, &[&str]); 10] = [
    ("environment_organization_idx", "environment", &["organization", "name"]),
    ("environment_project_idx", "environment", &["project", "organization", "name"]),
    ("resource_organization_idx", "resource", &["organization", "name"]),
    ("resource_project_idx", "resource", &["project", "environment", "organization", "name"]),
    ("run_organization_idx", "run", &["organization", "create_time"]),
    ("run_pipeline_idx", "run", &["pipeline", "organization", "create_time"]),
    ("run_project_time_idx", "run", &["project", "organization", "create_time"]),
    ("deployment_organization_idx", "deployment", &["organization", "create_time"]),
    ("deployment_environment_idx", "deployment", &["environment", "organization", "create_time"]),
    ("deployment_project_idx", "deployment", &["project", "organization", "create_time"]),
];
/// The newest successful run of a project is looked up by its state before its time.
const RUN_STATE: (&str, &str, &[&str]) =
    ("run_project_idx", "run", &["project", "state", "organization", "create_time"]);

/// A column as lists sort by it (`pavior_store::keyset`).
fn sorted(backend: DbBackend, column: &str) -> String {
    match (backend, column) {
        (DbBackend::Postgres, "name") => "name COLLATE \"C\"".to_owned(),
        (DbBackend::Sqlite, "create_time") => "rtrim(create_time, 'Z')".to_owned(),
        _ => column.to_owned(),
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let backend = connection.get_database_backend();
        for (name, table, columns) in INDEXES.into_iter().chain([RUN_STATE]) {
            let columns: Vec<String> = columns.iter().map(|column| sorted(backend, column)).collect();
            connection.execute_unprepared(&format!("DROP INDEX IF EXISTS {name}")).await?;
            let index = format!("CREATE INDEX {name} ON {table} ({})", columns.join(", "));
            connection.execute_unprepared(&index).await?;
        }
        Ok(())
    }
}
