//! The first tables.

use sea_orm_migration::prelude::*;

/// See the module.
#[derive(Debug)]
pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &str {
        "m20260101_000001_create_policy"
    }
}

fn text(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).text().not_null().to_owned()
}

fn number(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().not_null().to_owned()
}

fn flag(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).boolean().not_null().to_owned()
}

/// A table of resources of an organization.
fn resource(table: &'static str, own: Vec<ColumnDef>) -> TableCreateStatement {
    let mut create = columns(table, own);
    create.index(Index::create().unique().name(format!("{table}_name")).col("organization").col("id"));
    create
}

/// A table of resources, with what all of them have.
fn columns(table: &'static str, own: Vec<ColumnDef>) -> TableCreateStatement {
    let mut create = Table::create();
    create.table(table).col(ColumnDef::new("uid").uuid().not_null().primary_key());
    for column in
        [text("organization"), text("id"), number("revision"), number("create_time"), number("update_time")]
    {
        create.col(column);
    }
    for column in own {
        create.col(column);
    }
    create
}

fn tables() -> Vec<TableCreateStatement> {
    let optional = ColumnDef::new("on_behalf_of").text().to_owned();
    let approvals = [
        "state",
        "requester",
        "author",
        "action",
        "resource",
        "operation",
        "plan",
        "plan_digest",
        "summary",
        "requirements",
        "end_reason",
    ];
    let mut approvals: Vec<ColumnDef> = approvals.map(text).into();
    approvals.extend([optional, number("expire_time")]);
    let mut approvals = resource("approvals", approvals);
    approvals.index(
        Index::create()
            .unique()
            .name("approvals_plan")
            .col("organization")
            .col("operation")
            .col("plan_digest"),
    );
    let mut policies: Vec<ColumnDef> =
        ["display_name", "description", "policy_type", "source", "digest"].map(text).into();
    policies.push(number("text_revision"));
    let mut policy_bindings: Vec<ColumnDef> =
        ["policy", "projects", "environment_class_ids", "mode"].map(text).into();
    policy_bindings.push(ColumnDef::new("text_revision").big_integer().to_owned());
    vec![
        resource("roles", vec![text("display_name"), text("description"), text("actions")]),
        resource("role_bindings", ["role", "members", "scope", "reach"].map(text).into()),
        resource("policies", policies),
        resource("policy_bindings", policy_bindings),
        policy_revisions(),
        approvals,
        votes(),
        decisions(),
        Table::create()
            .table("organization_revisions")
            .col(ColumnDef::new("organization").text().not_null().primary_key())
            .col(number("revision"))
            .to_owned(),
    ]
}

fn votes() -> TableCreateStatement {
    let mut create = Table::create();
    create.table("approval_votes").col(ColumnDef::new("request").uuid().not_null());
    for column in ["voter", "choice", "reason", "plan_digest", "groups"].map(text) {
        create.col(column);
    }
    create.col(number("vote_time"));
    create.primary_key(Index::create().col("request").col("voter"));
    create.foreign_key(ForeignKey::create().from("approval_votes", "request").to("approvals", "uid"));
    create
}

fn decisions() -> TableCreateStatement {
    let texts = [
        "principal",
        "action",
        "resource",
        "stage",
        "effect",
        "reasons",
        "warnings",
        "shadow",
        "requirements",
        "granting_roles",
        "input_digest",
        "plan_digest",
        "policies_digest",
        "directory_version",
    ];
    let mut own: Vec<ColumnDef> = texts.map(text).into();
    own.extend([ColumnDef::new("on_behalf_of").text().to_owned(), flag("policy_error")]);
    resource("decisions", own)
}

/// Revisions are called by their numbers, which begin anew in each policy.
fn policy_revisions() -> TableCreateStatement {
    let own = ["policy", "policy_type", "source", "digest", "author"].map(text).into();
    let mut create = columns("policy_revisions", own);
    create.index(
        Index::create().unique().name("policy_revisions_name").col("organization").col("policy").col("id"),
    );
    create
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite takes plain indexes beside the table only, both databases take unique ones within.
        for table in tables() {
            manager.create_table(table).await?;
        }
        let indexes = [
            Index::create().name("role_bindings_role").table("role_bindings").col("role").to_owned(),
            Index::create().name("policy_bindings_policy").table("policy_bindings").col("policy").to_owned(),
            Index::create()
                .name("approvals_due")
                .table("approvals")
                .col("state")
                .col("expire_time")
                .to_owned(),
            Index::create().name("decisions_time").table("decisions").col("create_time").to_owned(),
            Index::create()
                .name("decisions_of")
                .table("decisions")
                .col("organization")
                .col("create_time")
                .to_owned(),
        ];
        for index in indexes {
            manager.create_index(index).await?;
        }
        Ok(())
    }
}
