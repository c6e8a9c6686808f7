//! The store against real databases.

// Helpers of tests are tests to people, but not to clippy.
#![allow(clippy::unwrap_used, clippy::panic, clippy::type_complexity)]

// The harness belongs to pavior-testkit, which depends on this crate and on much that is built later.
mod commit;
#[allow(unreachable_pub, dead_code)]
#[path = "../../../testkit/src/db.rs"]
mod db;
mod filter;
mod group;
mod history;
mod idempotency;
mod outbox;
mod paging;
mod tx;

use pavior_store::Store;
use sea_orm::{ConnectionTrait, Statement};
use sea_orm_migration::prelude::*;

struct Tables;

#[async_trait::async_trait]
impl MigratorTrait for Tables {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut all = pavior_store::outbox::migrations();
        all.extend(pavior_store::idempotency::migrations());
        all.push(Box::new(Things));
        all.push(pavior_store::installation::migration());
        all
    }
}

struct Things;

impl MigrationName for Things {
    fn name(&self) -> &str {
        "things_1"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Things {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let things = Table::create()
            .table("things")
            .col(ColumnDef::new("uid").uuid().not_null().primary_key())
            .col(ColumnDef::new("name").text().not_null().unique_key())
            .col(ColumnDef::new("title").text())
            .col(ColumnDef::new("lifecycle").text().not_null())
            .col(ColumnDef::new("create_time").timestamp_with_time_zone().not_null())
            .col(ColumnDef::new("update_micros").big_integer().not_null())
            .col(ColumnDef::new("ready").boolean().not_null())
            .col(ColumnDef::new("size").big_integer())
            .col(ColumnDef::new("labels").json_binary().not_null())
            .col(ColumnDef::new("tags").json_binary().not_null())
            .to_owned();
        manager.create_table(things).await?;
        let counters = Table::create()
            .table("counters")
            .col(ColumnDef::new("id").integer().not_null().primary_key())
            .col(ColumnDef::new("value").big_integer().not_null())
            .to_owned();
        manager.create_table(counters).await
    }
}

/// A row of the test's own table.
#[allow(unreachable_pub)]
mod thing {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "things")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub uid: Uuid,
        pub name: String,
        pub title: Option<String>,
        pub lifecycle: String,
        pub create_time: TimeDateTimeWithTimeZone,
        pub update_micros: i64,
        pub ready: bool,
        pub size: Option<i64>,
        pub labels: Json,
        pub tags: Json,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

async fn store(db: &db::TestDb) -> Store {
    let store = db.connect().await;
    pavior_store::migrate::<Tables>(&store).await.unwrap();
    store
}

/// A statement with the numbered placeholders that both databases understand.
fn sql<C: ConnectionTrait>(
    tx: &C,
    text: &str,
    values: impl IntoIterator<Item = sea_orm::Value>,
) -> Statement {
    Statement::from_sql_and_values(tx.get_database_backend(), text, values)
}

async fn count(store: &Store, table: &str) -> i64 {
    let statement = sql(store.read(), &format!("SELECT COUNT(*) AS n FROM {table}"), []);
    store.read().query_one_raw(statement).await.unwrap().unwrap().try_get("", "n").unwrap()
}
