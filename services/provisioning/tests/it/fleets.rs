//! Lists over all projects of an organization (AIP-159), and with which indexes they are made.

use pavior_store::StoreError;
use pavior_testkit::db::both;
use pavior_testkit::{assert_problem, dynamic, fields, user};
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use serde_json::{Value as Json, json};
use tonic::{Code, Status};

use crate::fixture::*;

/// What is listed below a parent: the method, the field of its answer, and the names by their projects.
async fn list(f: &Fixture, organization: &str, collection: &str, request: Json) -> Result<Json, Status> {
    let method = format!("List{}{}", collection[..1].to_uppercase(), &collection[1..]);
    let method = dynamic::method_of(pavior_provisioning::ROLE, &method);
    dynamic::call(f.transport(), &method, f.by(&user(organization, "alice"), request)).await
}

async fn names(f: &Fixture, collection: &str, parent: &str) -> Vec<String> {
    let page = list(f, "acme", collection, json!({ "parent": format!("{ACME}/{parent}") })).await.unwrap();
    let items = page[collection].as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> = items
        .iter()
        .map(|item| item["name"].as_str().unwrap().replace(&format!("{ACME}/projects/"), ""))
        .collect();
    names.sort();
    names
}

async fn two_projects(f: &Fixture) {
    f.project().await;
    let mut second = hello();
    second.project_id = "other".into();
    let second = f.projects().create_project(f.call(second)).await.unwrap().into_inner();
    assert_eq!(problem(&f.wait(second).await), None);
}

#[tokio::test]
async fn a_hyphen_stands_for_all() {
    both(|db| async {
        let f = Fixture::new(db).await;
        two_projects(&f).await;
        let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let own = ["entry", "pipeline", "repository"];
        let sections: Vec<String> = ["hello", "other"]
            .iter()
            .flat_map(|project| own.map(|id| format!("{project}/resources/{id}")))
            .collect();
        assert_eq!(names(&f, "resources", "projects/-").await, sections);
        let in_hello = [
            "hello/environments/development/resources/database",
            "hello/environments/development/resources/workload",
        ];
        assert_eq!(names(&f, "resources", "projects/hello/environments/-").await, of(&in_hello));
        let everywhere = names(&f, "resources", "projects/-/environments/-").await;
        assert_eq!(everywhere.len(), 4);
        assert!(everywhere.starts_with(&of(&in_hello)), "{everywhere:?}");
        let environments = of(&["hello/environments/development", "other/environments/development"]);
        assert_eq!(names(&f, "environments", "projects/-").await, environments);
        let pipelines = of(&["hello/pipelines/pipeline", "other/pipelines/pipeline"]);
        assert_eq!(names(&f, "pipelines", "projects/-").await, pipelines);
        let runs = of(&["hello/pipelines/pipeline/runs/run-1", "other/pipelines/pipeline/runs/run-1"]);
        assert_eq!(names(&f, "runs", "projects/-/pipelines/-").await, runs);
        assert_eq!(names(&f, "runs", "projects/hello/pipelines/-").await, runs[..1]);
        let deployments: Vec<String> =
            environments.iter().map(|name| format!("{name}/deployments/deployment-1")).collect();
        assert_eq!(names(&f, "deployments", "projects/-/environments/-").await, deployments);
        assert_eq!(names(&f, "deployments", "projects/other/environments/-").await, deployments[1..]);

        // Page by page it is the same, and all of it is counted.
        let parent = format!("{ACME}/projects/-/environments/-");
        let (mut paged, mut token) = (Vec::new(), String::new());
        loop {
            let request =
                json!({ "parent": parent, "pageSize": 1, "pageToken": token, "returnTotalSize": true });
            let page = list(&f, "acme", "resources", request).await.unwrap();
            assert_eq!(page["totalSize"], json!(4));
            paged.push(
                page["resources"][0]["name"].as_str().unwrap().replace(&format!("{ACME}/projects/"), ""),
            );
            token = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(paged, everywhere);
    })
    .await;
}

#[tokio::test]
async fn a_fleet_is_that_of_one_organization() {
    both(|db| async {
        let f = Fixture::new(db).await;
        two_projects(&f).await;
        for (collection, parent) in [
            ("environments", "projects/-"),
            ("resources", "projects/-"),
            ("resources", "projects/-/environments/-"),
            ("runs", "projects/-/pipelines/-"),
            ("deployments", "projects/-/environments/-"),
        ] {
            let foreign =
                list(&f, "umbrella", collection, json!({ "parent": format!("{ACME}/{parent}") })).await;
            assert_problem(foreign, Code::PermissionDenied, "ACCESS_DENIED", &[]);
            let parent = format!("organizations/umbrella/{parent}");
            let own = list(&f, "umbrella", collection, json!({ "parent": parent })).await.unwrap();
            assert_eq!(own, json!({}), "{collection}");
        }
        // A project that is named must be there, and a hyphen stands in the place of the last ids only.
        let missing =
            list(&f, "acme", "runs", json!({ "parent": format!("{ACME}/projects/none/pipelines/-") })).await;
        assert_problem(missing, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        for (collection, parent) in [
            ("runs", "organizations/acme/projects/-/pipelines/pipeline"),
            ("runs", "organizations/acme/projects/-/environments/-"),
            ("environments", "organizations/-/projects/-"),
            ("resources", "organizations/acme/projects/-/pipelines/-"),
        ] {
            let answer = list(&f, "acme", collection, json!({ "parent": parent })).await;
            let problem = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
            assert_eq!(fields(&problem), ["parent"], "{parent}");
        }
    })
    .await;
}

/// A list below one parent is found by the parent, and one over all by the organization; neither reads a whole table,
/// and neither sorts more than rows of the same name or time.
#[tokio::test]
async fn each_list_has_its_index() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let store = &f.store;
        let postgres = store.backend() == DbBackend::Postgres;
        if postgres {
            // SQLite chooses by the indexes, PostgreSQL by what stands in the tables.
            f.project().await;
            for table in ["environment", "resource", "run", "deployment"] {
                fill(store, table).await;
            }
        }
        let name = if postgres { "name COLLATE \"C\"" } else { "name" };
        let time = if postgres { "create_time" } else { "rtrim(create_time, 'Z')" };
        let newest = format!("{time} DESC");
        for (table, by, order, index) in [
            ("environment", "project = 'p'", name, "environment_project_idx"),
            ("environment", "", name, "environment_organization_idx"),
            ("resource", "project = 'p' AND environment = 'e'", name, "resource_project_idx"),
            ("resource", "project = 'p' AND environment > ''", name, "resource_project_idx"),
            ("resource", "environment > ''", name, "resource_organization_idx"),
            ("run", "pipeline = 'p'", &newest, "run_pipeline_idx"),
            ("run", "project = 'p'", &newest, "run_project_time_idx"),
            ("run", "", &newest, "run_organization_idx"),
            ("deployment", "environment = 'e'", &newest, "deployment_environment_idx"),
            ("deployment", "project = 'p'", &newest, "deployment_project_idx"),
            ("deployment", "", &newest, "deployment_organization_idx"),
        ] {
            let by = if by.is_empty() { String::new() } else { format!("AND {by}") };
            let sql = format!(
                "SELECT * FROM {table} WHERE organization = 'acme' {by} ORDER BY {order}, uid LIMIT 51"
            );
            let plan = explain(store, &sql).await;
            assert!(plan.contains(index), "{table} {by}: {plan}");
        }
    })
    .await;
}

/// Copies a row of a table to many organizations and projects.
async fn fill(store: &pavior_store::Store, table: &str) {
    let sql = format!(
        "INSERT INTO {table} SELECT copy.* FROM (SELECT * FROM {table} AS kept \
         WHERE to_jsonb(kept) -> 'driver_state' IS DISTINCT FROM 'null'::jsonb LIMIT 1) AS one, generate_series(1, 5000) AS i, \
         LATERAL jsonb_populate_record(NULL::{table}, to_jsonb(one) || jsonb_build_object('uid', gen_random_uuid(), \
         'name', 'name-' || i, 'organization', 'o' || i % 20, 'project', 'p' || i % 500, 'pipeline', 'p' || i % 500, \
         'environment', 'e' || i % 500, 'create_time', now() + i * interval '1 second')) AS copy"
    );
    let statements = [sql, format!("ANALYZE {table}")];
    let filled = store.upkeep("a test", move |tx| {
        let statements = statements.clone();
        Box::pin(async move {
            for sql in statements {
                tx.execute_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
            }
            Ok::<_, StoreError>(())
        })
    });
    filled.await.unwrap();
}

/// How a query is carried out.
async fn explain(store: &pavior_store::Store, sql: &str) -> String {
    let backend = store.backend();
    let statement = |sql: String| Statement::from_string(backend, sql);
    let (explain, column) = match backend {
        DbBackend::Postgres => ("EXPLAIN", "QUERY PLAN"),
        _ => ("EXPLAIN QUERY PLAN", "detail"),
    };
    let rows = store.read().query_all_raw(statement(format!("{explain} {sql}"))).await.unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.try_get("", column).unwrap()).collect();
    lines.join("; ")
}
