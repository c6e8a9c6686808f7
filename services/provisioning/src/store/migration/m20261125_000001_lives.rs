//! How long things may take and are kept, and whose an operation is, in the operation's own row.

use sea_orm_migration::prelude::*;

/// The migration.
#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

/// How long an undo may take that began before it had a limit: an hour, in microseconds.
const UNDO: i64 = 3_600_000_000;

fn text(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).text().not_null().default("").to_owned()
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let operation = [
            ColumnDef::new("undo_timeout").big_integer().not_null().default(UNDO).to_owned(),
            text("owner"),
            text("environment_class"),
            ColumnDef::new("labels").json_binary().not_null().default("{}").to_owned(),
            text("canceller"),
            text("deleter"),
            ColumnDef::new("delete_time").timestamp_with_time_zone().null().to_owned(),
        ];
        for column in operation {
            add(manager, "operation", column).await?;
        }
        let waits = ColumnDef::new("waits").integer().not_null().default(0).to_owned();
        add(manager, "step", waits).await?;
        // The deadline of what is being undone was that of the work before it.
        let undoing = Query::update()
            .table("operation")
            .value("deadline", 0)
            .and_where(Expr::col("state").eq("COMPENSATING"))
            .to_owned();
        manager.execute(undoing).await?;
        let ended = Index::create()
            .name("operation_end_idx")
            .table("operation")
            .col("organization")
            .col("end_time")
            .to_owned();
        manager.create_index(ended).await?;
        let plan = Index::create().name("operation_plan_idx").table("operation").col("plan").to_owned();
        manager.create_index(plan).await
    }
}

async fn add(manager: &SchemaManager<'_>, table: &'static str, mut column: ColumnDef) -> Result<(), DbErr> {
    manager.alter_table(Table::alter().table(table).add_column(&mut column).to_owned()).await
}
