//! No query reads a whole table of tenants' rows: for whatever the store's sources filter by, there is an index.

use std::collections::BTreeSet;
use std::path::Path;

use heck::ToSnakeCase as _;
use pavior_provisioning::store::migration::Migrator;
use pavior_testkit::db::sqlite;
use sea_orm::{ConnectionTrait, DbBackend, Statement};

/// Queries that read every row on purpose: what the service does over all organizations, now and then. May only shrink.
const WHOLE: [&str; 10] = [
    // Which artifacts anything refers to.
    "artifact.rs: all of deployment",
    "artifact.rs: all of operation",
    "artifact.rs: all of resource",
    "artifact.rs: all of run",
    // What drivers are told that the platform declares.
    "operation/read.rs: all of operation",
    "resource.rs: all of resource",
    // What is kept of what has ended.
    "retention.rs: all of deployment",
    "retention.rs: all of run",
    "retention.rs: all of secret",
    "retention.rs: all of timer",
];

/// A query: the table, what its rows are equal in, and the rest of what it asks.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Query {
    table: String,
    equal: BTreeSet<String>,
    within: BTreeSet<String>,
}

fn word(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// Reads `.filter(table::Column::Name.eq(` and the like in one call chain.
fn query(table: &str, chain: &str) -> Query {
    let mut query = Query { table: table.to_owned(), equal: BTreeSet::new(), within: BTreeSet::new() };
    for filter in chain.split(".filter(").skip(1) {
        let Some(column) = filter.strip_prefix("C::").or_else(|| {
            let rest = &filter[word(filter).len()..];
            rest.strip_prefix("::Column::")
        }) else {
            continue;
        };
        let name = word(column);
        let how = column[name.len()..].strip_prefix('.').map(word).unwrap_or_default();
        match how {
            "eq" | "is_in" | "in_subquery" => query.equal.insert(name.to_snake_case()),
            "lt" | "lte" | "gt" | "gte" => query.within.insert(name.to_snake_case()),
            _ => false,
        };
    }
    query
}

/// Every query of a source file that is not by primary key.
fn queries(source: &str) -> Vec<Query> {
    let source: String = source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let source: String = source.split_whitespace().collect();
    // What is declared is a part of one table.
    let source = source.replace("=declared()", "=resource::Entity::find()");
    let mut found = Vec::new();
    for (at, _) in source.match_indices("::Entity::") {
        let table =
            source[..at].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        let rest = &source[at + "::Entity::".len()..];
        if !["find()", "update_many()", "delete_many()"].iter().any(|begin| rest.starts_with(begin)) {
            continue;
        }
        let ends = [rest.find(';'), rest.find("::Entity::")];
        let chain = &rest[..ends.into_iter().flatten().min().unwrap_or(rest.len())];
        // In a macro the table has no name; `$entity` is asked for by name or by operation, as below.
        if source[..at].ends_with(&format!("${table}")) {
            continue;
        }
        found.push(query(table, chain));
    }
    found
}

#[tokio::test]
async fn no_query_of_the_store_reads_a_whole_table() {
    let file = sqlite();
    let store = file.connect().await;
    pavior_store::migrate::<Migrator>(&store).await.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut all: Vec<(String, Query)> = Vec::new();
    let operation = std::fs::read_dir(folder.join("operation")).unwrap();
    for entry in std::fs::read_dir(&folder).unwrap().chain(operation) {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "rs") {
            let name = path.strip_prefix(&folder).unwrap().to_string_lossy().into_owned();
            let source = std::fs::read_to_string(&path).unwrap();
            all.extend(queries(&source).into_iter().map(|query| (name.clone(), query)));
        }
    }
    for (table, column) in [
        ("project", "name"),
        ("environment", "name"),
        ("resource", "name"),
        ("run", "name"),
        ("deployment", "name"),
        ("plan", "name"),
        ("operation", "name"),
        ("run", "operation"),
        ("deployment", "operation"),
    ] {
        let equal = [column.to_owned()].into();
        all.push(("a macro".to_owned(), Query { table: table.to_owned(), equal, within: BTreeSet::new() }));
    }
    assert!(all.len() > 80, "the sources are not understood: {}", all.len());
    let mut whole = BTreeSet::new();
    for (file, query) in &all {
        let each = query.equal.iter().map(|column| format!("{column} = '1'"));
        let each: Vec<_> = each.chain(query.within.iter().map(|column| format!("{column} < 1"))).collect();
        let by = if each.is_empty() { "1 = 1".to_owned() } else { each.join(" AND ") };
        let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM {} WHERE {by}", query.table);
        let rows = store.read().query_all_raw(Statement::from_string(DbBackend::Sqlite, sql)).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.try_get("", "detail").unwrap()).collect();
        if plan.iter().any(|line| line.starts_with("SCAN")) {
            let columns: Vec<&str> = query.equal.iter().chain(&query.within).map(String::as_str).collect();
            whole.insert(match columns.as_slice() {
                [] => format!("{file}: all of {}", query.table),
                columns => format!("{file}: {} by {}", query.table, columns.join(", ")),
            });
        }
    }
    let allowed: BTreeSet<String> = WHOLE.iter().map(|line| (*line).to_owned()).collect();
    assert_eq!(whole, allowed, "add an index, or filter by what has one");
}

/// What a driver names is looked up by its name: an organization, and a driver, may have very many things.
#[tokio::test]
async fn a_thing_is_found_by_its_identity() {
    let file = sqlite();
    let store = file.connect().await;
    pavior_store::migrate::<Migrator>(&store).await.unwrap();
    let sql = "EXPLAIN QUERY PLAN SELECT * FROM resource WHERE organization = '1' AND driver = '1' AND identity = '1'";
    let row = store.read().query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await.unwrap();
    let plan: String = row.unwrap().try_get("", "detail").unwrap();
    assert!(plan.contains("(driver=? AND identity=?)"), "{plan}");
}
