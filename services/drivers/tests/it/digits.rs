//! Ids may begin with a digit: what drivers derive from them is a name of its kind all the same.

use pavior_driver::{CallContext, SecretString, Success};
use serde_json::{Value, json};

use crate::world::{World, success};

const ORGANIZATION: &str = "3scale";

async fn made(world: &World, driver: &str, kind: &str, inputs: Value) -> Success {
    // The PostgreSQL server is shared by all tests: the key carries this test's directory.
    let key = format!("op/{driver}/{}", world.data.display());
    let resource = format!("organizations/{ORGANIZATION}/projects/2024/environments/1st/resources/1st-line");
    let mut call = CallContext::new(ORGANIZATION, &resource, &key, 1);
    (call.operation, call.step) = (key.clone(), key);
    let made = success(world.apply(driver, kind, &call, inputs).await);
    call.idempotency_key.push_str("/destroy");
    if driver != "git" {
        success(world.destroy(driver, kind, &call, &made.identity).await);
    }
    made
}

#[tokio::test]
async fn repositories_pipelines_and_workloads() {
    let world = World::new().await;
    let repository = made(&world, "git", "git-repository", json!({ "files": { "a": "b" } })).await;
    assert!(repository.identity.starts_with("3scale/2024@"), "{}", repository.identity);
    let url = &repository.outputs["url"];
    assert_eq!(*url, format!("{}/git/3scale/2024.git", world.url));
    let inputs = json!({ "repository": url, "steps": [{ "name": "1st", "run": "true" }] });
    let pipeline = made(&world, "pipeline", "ci-pipeline", inputs).await;
    assert!(pipeline.identity.starts_with("1st-line-"), "{}", pipeline.identity);
    let serve = "import os,http.server as h;\
                 h.HTTPServer(('127.0.0.1',int(os.environ['PORT'])),h.SimpleHTTPRequestHandler).serve_forever()";
    let workload = made(&world, "process", "workload", json!({ "command": ["python3", "-c", serve] })).await;
    assert!(workload.identity.starts_with("1st-line-"), "{}", workload.identity);
}

#[tokio::test]
async fn databases() {
    let world = World::new().await;
    let file = made(&world, "sqlite-database", "sql-database", json!({ "name": "1st" })).await;
    assert!(file.identity.starts_with("3scale/1st-"), "{}", file.identity);
    let Some(db) = pavior_testkit::db::postgres().await else { return };
    let world = World::with(|config| config.postgres_url = Some(SecretString::from(db.url.clone()))).await;
    let database = made(&world, "postgres-database", "sql-database", json!({})).await;
    // An identifier of SQL that is not quoted does not begin with a digit.
    assert!(database.identity.starts_with("p_3scale_1st_line_"), "{}", database.identity);
}
