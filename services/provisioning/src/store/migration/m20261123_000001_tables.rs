//! The first tables.

use sea_orm_migration::prelude::*;

/// The migration.
#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

fn text(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).text().not_null().to_owned()
}

fn uuid(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).uuid().not_null().to_owned()
}

fn json(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).json_binary().not_null().to_owned()
}

fn optional_json(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).json_binary().null().to_owned()
}

fn time(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).timestamp_with_time_zone().not_null().to_owned()
}

fn optional_time(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).timestamp_with_time_zone().null().to_owned()
}

fn big(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().not_null().to_owned()
}

fn optional_big(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().null().to_owned()
}

fn int(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).integer().not_null().to_owned()
}

fn flag(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).boolean().not_null().to_owned()
}

fn bytes(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).binary().not_null().to_owned()
}

fn table(name: &'static str, key: &[&'static str], columns: Vec<ColumnDef>) -> TableCreateStatement {
    let mut table = Table::create().table(name).to_owned();
    for mut column in columns {
        table.col(&mut column);
    }
    let mut primary = Index::create();
    for column in key {
        primary.col(*column);
    }
    table.primary_key(&mut primary);
    table
}

fn index(
    name: &'static str,
    on: &'static str,
    columns: &[&'static str],
    unique: bool,
) -> IndexCreateStatement {
    let mut index = Index::create().name(name).table(on).to_owned();
    for column in columns {
        index.col(*column);
    }
    if unique {
        index.unique();
    }
    index
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in targets().into_iter().chain(engine()) {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

/// What is made.
fn targets() -> Vec<TableCreateStatement> {
    vec![
        table(
            "project",
            &["uid"],
            vec![
                uuid("uid"),
                text("organization"),
                text("name"),
                text("display_name"),
                text("owner"),
                text("template_version"),
                json("parameters"),
                json("labels"),
                text("state"),
                text("operation"),
                text("creator"),
                time("create_time"),
                time("update_time"),
                big("revision"),
                big("run_seq"),
                big("touched"),
            ],
        ),
        table(
            "environment",
            &["uid"],
            vec![
                uuid("uid"),
                text("organization"),
                text("project"),
                text("name"),
                text("display_name"),
                text("class"),
                text("template_version"),
                json("parameters"),
                optional_big("ttl_seconds"),
                optional_time("expire_time"),
                text("state"),
                text("operation"),
                text("creator"),
                time("create_time"),
                time("update_time"),
                big("revision"),
                big("deployment_seq"),
            ],
        ),
        table(
            "resource",
            &["uid"],
            vec![
                uuid("uid"),
                text("organization"),
                text("project"),
                text("environment"),
                text("name"),
                text("resource_type"),
                text("type_id"),
                text("resource_definition"),
                text("driver"),
                text("driver_version"),
                text("identity"),
                json("inputs"),
                json("outputs"),
                json("driver_state"),
                json("spec"),
                text("sealed_inputs"),
                text("url"),
                text("state"),
                big("generation"),
                big("fence"),
                json("depends_on"),
                text("monthly_cost"),
                flag("undoable"),
                time("create_time"),
                time("update_time"),
                big("revision"),
            ],
        ),
        table(
            "run",
            &["uid"],
            vec![
                uuid("uid"),
                text("organization"),
                text("project"),
                text("pipeline"),
                text("name"),
                text("state"),
                text("commit_id"),
                json("steps"),
                json("artifacts"),
                text("operation"),
                text("creator"),
                time("create_time"),
                optional_time("end_time"),
            ],
        ),
        table(
            "deployment",
            &["uid"],
            vec![
                uuid("uid"),
                text("organization"),
                text("project"),
                text("environment"),
                text("resource"),
                text("name"),
                text("state"),
                text("run"),
                text("commit_id"),
                json("artifact"),
                text("url"),
                text("source_deployment"),
                text("operation"),
                text("creator"),
                time("create_time"),
                time("update_time"),
            ],
        ),
        table(
            "secret",
            &["reference"],
            vec![text("reference"), uuid("resource"), bytes("sealed"), time("create_time")],
        ),
    ]
}

/// How it is made.
fn engine() -> Vec<TableCreateStatement> {
    vec![
        table(
            "operation",
            &["id"],
            vec![
                uuid("id"),
                text("organization"),
                text("name"),
                text("kind"),
                text("action"),
                text("target"),
                text("project"),
                text("state"),
                flag("cancel_requested"),
                uuid("plan"),
                text("plan_digest"),
                text("requester"),
                json("principal"),
                text("request_id"),
                text("approval"),
                json("approvals"),
                optional_json("error"),
                optional_json("gone"),
                json("settings"),
                big("event_seq"),
                big("log_seq"),
                big("generation"),
                text("engine_version"),
                big("deadline"),
                time("create_time"),
                time("update_time"),
                optional_time("start_time"),
                optional_time("end_time"),
            ],
        ),
        table(
            "step",
            &["id"],
            vec![
                uuid("id"),
                uuid("operation"),
                text("organization"),
                int("ordinal"),
                text("name"),
                text("resource"),
                text("driver"),
                text("driver_version"),
                text("action"),
                json("depends_on"),
                flag("undoable"),
                json("spec"),
                optional_json("prior"),
                text("subject"),
                text("state"),
                flag("remains"),
                int("attempt"),
                int("undo_attempt"),
                big("fence"),
                text("worker"),
                big("lease_until"),
                big("not_before"),
                text("idempotency_key"),
                optional_json("checkpoint"),
                optional_json("outputs"),
                optional_json("error"),
                optional_time("start_time"),
                optional_time("end_time"),
            ],
        ),
        table(
            "event",
            &["operation", "seq"],
            vec![uuid("operation"), big("seq"), time("time"), text("kind"), text("step"), json("body")],
        ),
        table(
            "log_chunk",
            &["operation", "seq"],
            vec![uuid("operation"), big("seq"), time("time"), text("step"), int("attempt"), json("lines")],
        ),
        table(
            "timer",
            &["id"],
            vec![uuid("id"), text("organization"), big("due"), text("kind"), text("subject"), int("attempt")],
        ),
        table(
            "plan",
            &["id"],
            vec![
                uuid("id"),
                text("organization"),
                text("name"),
                text("action"),
                text("target"),
                text("requester"),
                text("digest"),
                json("document"),
                time("create_time"),
            ],
        ),
    ]
}

/// What is looked up.
fn indexes() -> Vec<IndexCreateStatement> {
    vec![
        index("project_name_idx", "project", &["name"], true),
        index("environment_name_idx", "environment", &["name"], true),
        index("resource_name_idx", "resource", &["name"], true),
        index("run_name_idx", "run", &["name"], true),
        index("deployment_name_idx", "deployment", &["name"], true),
        index("environment_project_idx", "environment", &["project"], false),
        index("resource_project_idx", "resource", &["project", "environment"], false),
        index("operation_name_idx", "operation", &["name"], true),
        index("operation_state_idx", "operation", &["state", "create_time"], false),
        index("operation_project_idx", "operation", &["project", "state"], false),
        index("operation_organization_idx", "operation", &["organization", "create_time"], false),
        index("step_operation_idx", "step", &["operation", "ordinal"], true),
        index("step_state_idx", "step", &["state", "not_before"], false),
        index("step_lease_idx", "step", &["state", "lease_until"], false),
        index("timer_due_idx", "timer", &["due"], false),
        index("timer_subject_idx", "timer", &["subject"], false),
        index("plan_name_idx", "plan", &["name"], true),
        index("plan_organization_idx", "plan", &["organization", "create_time"], false),
        index("run_pipeline_idx", "run", &["pipeline", "create_time"], false),
        index("deployment_environment_idx", "deployment", &["environment", "create_time"], false),
        index("deployment_state_idx", "deployment", &["environment", "state"], false),
        index("secret_resource_idx", "secret", &["resource"], false),
    ]
}
