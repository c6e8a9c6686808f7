//! The first schema. Every table of tenant data has the organization first in its unique key, and an index for each
//! order and each filter that is meant to be quick. The organization comes first there too: SQLite, which keeps no
//! statistics by itself, would rather follow any index on the organization alone than a list of ids. Text is sorted by bytes on both databases.

use sea_orm::{ConnectionTrait as _, DbBackend};
use sea_orm_migration::async_trait;
use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager};

/// See the module's text.
#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

const HEAD: &str = "uid {uuid} PRIMARY KEY, organization {text} NOT NULL, id {text} NOT NULL, \
    revision bigint NOT NULL, create_time bigint NOT NULL, update_time bigint NOT NULL";

const TABLES: &[(&str, &str)] = &[
    (
        "organizations",
        "{head}, display_name {text} NOT NULL, directory_revision bigint NOT NULL, UNIQUE (id)",
    ),
    (
        "groups",
        "{head}, display_name {text} NOT NULL, description {text} NOT NULL, parent {text}, \
         UNIQUE (organization, id)",
    ),
    ("users", "{head}, display_name {text} NOT NULL, email {text} NOT NULL, UNIQUE (organization, id)"),
    (
        "memberships",
        "{head}, group_id {text} NOT NULL, member {text} NOT NULL, source {text} NOT NULL, \
         by_group boolean NOT NULL, by_member boolean NOT NULL, UNIQUE (organization, group_id, id)",
    ),
    (
        "kinds",
        "{head}, display_name {text} NOT NULL, description {text} NOT NULL, spec_schema {text} NOT NULL, \
         relation_rules {json} NOT NULL, built_in boolean NOT NULL, UNIQUE (organization, id)",
    ),
    (
        "entities",
        "{head}, display_name {text} NOT NULL, kind {text} NOT NULL, description {text} NOT NULL, \
         labels {json} NOT NULL, annotations {json} NOT NULL, tags {json} NOT NULL, links {json} NOT NULL, \
         owner {text} NOT NULL, spec {json} NOT NULL, origin {text} NOT NULL, digest {text} NOT NULL, \
         UNIQUE (organization, kind, id)",
    ),
    (
        "entity_facets",
        "entity {uuid} NOT NULL, name {text} NOT NULL, value {text} NOT NULL, organization {text} NOT NULL, \
         PRIMARY KEY (organization, entity, name, value)",
    ),
    (
        "relations",
        "source {uuid} NOT NULL, relation {text} NOT NULL, target_kind {text} NOT NULL, \
         target_id {text} NOT NULL, organization {text} NOT NULL, inverse {text} NOT NULL, \
         source_kind {text} NOT NULL, source_id {text} NOT NULL, \
         PRIMARY KEY (organization, source, relation, target_kind, target_id, inverse)",
    ),
    (
        "templates",
        "{head}, display_name {text} NOT NULL, description {text} NOT NULL, channels {json} NOT NULL, \
         latest_version {text} NOT NULL, UNIQUE (organization, id)",
    ),
    (
        "template_versions",
        "{head}, template {text} NOT NULL, sort_key {text} NOT NULL, document {text} NOT NULL, \
         digest {text} NOT NULL, parameter_schema {text} NOT NULL, environment_classes {json} NOT NULL, \
         content {json} NOT NULL, UNIQUE (organization, template, id)",
    ),
    (
        "template_types",
        "version {uuid} NOT NULL, resource_type {text} NOT NULL, organization {text} NOT NULL, \
         template {text} NOT NULL, version_id {text} NOT NULL, PRIMARY KEY (organization, version, resource_type)",
    ),
    (
        "resource_types",
        "{head}, display_name {text} NOT NULL, description {text} NOT NULL, input_schema {text} NOT NULL, \
         output_schema {text} NOT NULL, secret_outputs {json} NOT NULL, UNIQUE (organization, id)",
    ),
    (
        "resource_definitions",
        "{head}, display_name {text} NOT NULL, description {text} NOT NULL, resource_type {text} NOT NULL, \
         driver {text} NOT NULL, driver_inputs {json} NOT NULL, match_criteria {json} NOT NULL, \
         monthly_cost {text}, UNIQUE (organization, id)",
    ),
];

const INDEXES: &[(&str, &str, &str)] = &[
    ("groups_parent", "groups", "organization, parent"),
    ("groups_create_time", "groups", "organization, create_time, uid"),
    ("users_create_time", "users", "organization, create_time, uid"),
    ("memberships_member", "memberships", "organization, member, group_id"),
    ("memberships_create_time", "memberships", "organization, create_time, uid"),
    ("memberships_group_create_time", "memberships", "organization, group_id, create_time, uid"),
    ("kinds_create_time", "kinds", "organization, create_time, uid"),
    ("entities_owner", "entities", "organization, owner"),
    ("entities_create_time", "entities", "organization, create_time, uid"),
    ("entities_update_time", "entities", "organization, update_time, uid"),
    ("entities_display_name", "entities", "organization, display_name, uid"),
    ("entities_kind_create_time", "entities", "organization, kind, create_time, uid"),
    ("entities_kind_update_time", "entities", "organization, kind, update_time, uid"),
    ("entities_kind_display_name", "entities", "organization, kind, display_name, uid"),
    ("entity_facets_value", "entity_facets", "organization, name, value, entity"),
    (
        "relations_target",
        "relations",
        "organization, target_kind, target_id, inverse, source_kind, source_id",
    ),
    ("templates_create_time", "templates", "organization, create_time, uid"),
    ("template_versions_create_time", "template_versions", "organization, template, create_time, uid"),
    ("template_versions_sort_key", "template_versions", "organization, template, sort_key, uid"),
    ("template_types_type", "template_types", "organization, resource_type"),
    ("resource_types_create_time", "resource_types", "organization, create_time, uid"),
    ("resource_definitions_create_time", "resource_definitions", "organization, create_time, uid"),
    ("resource_definitions_type", "resource_definitions", "organization, resource_type"),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let (text, json, uuid) = match manager.get_database_backend() {
            DbBackend::Postgres => ("text COLLATE \"C\"", "jsonb", "uuid"),
            // The names from which SeaORM reads these types back.
            _ => ("text", "jsonb_text", "uuid_text"),
        };
        for (table, columns) in TABLES {
            let columns = columns
                .replace("{head}", HEAD)
                .replace("{text}", text)
                .replace("{json}", json)
                .replace("{uuid}", uuid);
            connection.execute_unprepared(&format!("CREATE TABLE \"{table}\" ({columns})")).await?;
        }
        for (index, table, columns) in INDEXES {
            connection
                .execute_unprepared(&format!("CREATE INDEX \"{index}\" ON \"{table}\" ({columns})"))
                .await?;
        }
        Ok(())
    }
}
