//! What is left of an apply that fails, or that nobody hears the end of.

use std::path::Path;

use pavior_driver::{FailureCode, Lookup, Observation, SecretString, Success};
use sea_orm::{ConnectionTrait, Database};
use serde_json::json;

use crate::world::{World, context, success, wait_for};

fn files(folder: &Path) -> Vec<String> {
    let all = walkdir::WalkDir::new(folder).into_iter().flatten();
    all.filter(|entry| entry.file_type().is_file()).map(|entry| entry.path().display().to_string()).collect()
}

const WEB: &str = "organizations/acme/projects/p/environments/dev/resources/web";

#[tokio::test]
async fn a_workload_that_never_ran_leaves_no_folder_no_record_and_no_log() {
    let world = World::new().await;
    let call = context(WEB, "op/web/1");
    let inputs =
        json!({"command": ["sh", "-c", "echo token=$TOKEN; exit 3"], "variables": {"TOKEN": "hunter2222"}});
    let outcome = world.apply_over("process", "workload", &call, inputs, None, &["hunter2222"]).await;
    let failure = outcome.failure().unwrap();
    assert_eq!(failure.code, FailureCode::WorkFailed);
    assert!(failure.message.contains("token=***") && failure.partial.is_none(), "{failure:?}");
    assert_eq!(files(&world.data.join("workloads")), [""; 0]);
    for part in ["things", "keys"] {
        assert_eq!(files(&world.data.join("drivers/process").join(part)), [""; 0]);
    }
    // The same key may try again, and a workload that stays makes its folder anew.
    let outcome = world.apply("process", "workload", &call, json!({"command": ["true"]})).await;
    assert_eq!(outcome.failure().unwrap().code, FailureCode::WorkFailed);
    assert_eq!(std::fs::read_dir(world.data.join("workloads")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_was_installed_for_a_version_that_failed_goes_with_it() {
    let world = World::new().await;
    let serve = "import os,http.server as h;h.HTTPServer(('127.0.0.1',int(os.environ['PORT'])),h.SimpleHTTPRequestHandler).serve_forever()";
    let artifact = |content: &str| {
        let digest = pavior_core::digest::sha256_hex(content.as_bytes());
        let folder = world.data.join("artifacts/acme/pipeline-1/sha256").join(digest);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("app.py"), content).unwrap();
        folder.join("app.py")
    };
    let inputs = |content: &str| json!({"command": ["python3", artifact(content)]});
    let made = success(world.apply("process", "workload", &context(WEB, "op/web/1"), inputs(serve)).await);
    let releases = || {
        let mut files = files(&world.data.join("workloads"));
        files.retain(|file| file.contains("/releases/"));
        files
    };
    let before = releases();
    assert_eq!(before.len(), 1);
    let outcome = world
        .apply_over("process", "workload", &context(WEB, "op/web/2"), inputs("exit(3)"), Some(&made), &[])
        .await;
    assert_eq!(outcome.failure().unwrap().code, FailureCode::WorkFailed);
    assert_eq!(releases(), before);
    world.drivers.stop().await;
}

/// The platform looks by key after a call whose end it did not hear: what ran before is not what that call asked for.
#[tokio::test]
async fn an_update_that_broke_off_is_not_taken_for_done() {
    let world = World::new().await;
    let listen = "import os, _socket as s; l = s.socket(); l.bind(('127.0.0.1', int(os.environ['PORT']))); \
                  l.listen(9); __import__('time').sleep(600)";
    let first = json!({"command": ["python3", "-c", listen]});
    let made = success(world.apply("process", "workload", &context(WEB, "op/web/1"), first.clone()).await);
    let call = context(WEB, "op/web/2");
    let next = json!({"command": ["sh", "-c", "touch begun; exec sleep 600"]});
    let update = world.apply_over("process", "workload", &call, next, Some(&made), &[]);
    let begun = wait_for("the next version", || {
        files(&world.data.join("workloads")).iter().any(|file| file.ends_with("/begun")).then_some(())
    });
    tokio::select! {
        outcome = update => panic!("it ended: {outcome:?}"),
        () = begun => {}
    }
    let seen = world.observe("process", "workload", &call, Lookup::Key("op/web/2".to_owned())).await;
    assert!(
        matches!(&seen, Observation::Partial { identity: Some(identity), .. } if *identity == made.identity),
        "{seen:?}"
    );
    for lookup in [Lookup::Identity(made.identity.clone()), Lookup::Key("op/web/1".to_owned())] {
        let seen = world.observe("process", "workload", &call, lookup).await;
        assert!(matches!(&seen, Observation::Found(found) if found.outputs == made.outputs), "{seen:?}");
    }
    // The same key ends it, with success or not.
    let next =
        json!({"command": ["sh", "-c", "touch begun; exec sleep 600"], "health": {"timeout": "500ms"}});
    let again = context(WEB, "op/web/3");
    let outcome = world.apply_over("process", "workload", &again, next, Some(&made), &[]).await;
    assert_eq!(outcome.failure().unwrap().code, FailureCode::WorkFailed);
    let back = success(
        world
            .apply_over("process", "workload", &context(WEB, "op/web/2/undo"), first, Some(&made), &[])
            .await,
    );
    assert_eq!(back.outputs, made.outputs);
    world.drivers.stop().await;
}

#[tokio::test]
async fn a_database_file_that_cannot_be_made_leaves_no_record() {
    let world = World::new().await;
    let folder = world.data.join("databases/acme");
    std::fs::write(&folder, "in the way").unwrap();
    let call = context("organizations/acme/projects/p/environments/dev/resources/db", "op/db/1");
    let outcome = world.apply("sqlite-database", "sql-database", &call, json!({})).await;
    let failure = outcome.failure().unwrap();
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (FailureCode::Internal, "the database cannot be made")
    );
    // What stands in the way keeps it from being looked for, too: then it is named for the platform to remove.
    let partial = failure.partial.as_ref().and_then(|partial| partial.identity.clone()).unwrap();
    std::fs::remove_file(&folder).unwrap();
    success(world.destroy("sqlite-database", "sql-database", &call, &partial).await);
    assert_eq!(files(&world.data.join("drivers/sqlite-database/things")), [""; 0]);
}

#[tokio::test]
async fn another_resources_database_survives_an_apply_that_is_refused() {
    let Some(db) = pavior_testkit::db::postgres().await else { return };
    let url = SecretString::from(db.url.clone());
    let world = World::with(|config| config.postgres_url = Some(url)).await;
    let resource =
        format!("organizations/acme/projects/p/environments/dev{}/resources/x", world.data.display());
    let call = context(&resource, &format!("op/x/{}", world.data.display()));
    let digest = pavior_core::digest::sha256_hex(format!("{resource}\0{}", call.idempotency_key).as_bytes());
    let database = format!("p_acme_x_{}", &digest[..12]);
    let admin = Database::connect(db.url.clone()).await.unwrap();
    admin.execute_unprepared(&format!("CREATE DATABASE {database}")).await.unwrap();
    let theirs = format!("COMMENT ON DATABASE {database} IS 'of somebody else'");
    admin.execute_unprepared(&theirs).await.unwrap();
    let outcome = world.apply("postgres-database", "sql-database", &call, json!({})).await;
    let failure = outcome.failure().unwrap();
    assert_eq!(failure.code, FailureCode::Conflict, "{failure}");
    assert!(failure.partial.is_none(), "{failure:?}");
    assert_eq!(files(&world.data.join("drivers/postgres-database/things")), [""; 0]);
    admin.execute_unprepared(&format!("DROP DATABASE {database}")).await.unwrap();
}

#[tokio::test]
async fn roles_of_a_database_that_cannot_be_made_go_again() {
    let Some(db) = pavior_testkit::db::postgres().await else { return };
    let admin = Database::connect(db.url.clone()).await.unwrap();
    // May make roles, and no databases.
    let half = format!("half_{}", &pavior_core::digest::sha256_hex(db.url.as_bytes())[..12]);
    admin.execute_unprepared(&format!("CREATE ROLE {half} LOGIN CREATEROLE PASSWORD 'half'")).await.unwrap();
    let (scheme, rest) = db.url.split_once("://").unwrap();
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let url = SecretString::from(format!("{scheme}://{half}:half@{place}"));
    let world = World::with(|config| config.postgres_url = Some(url)).await;
    let resource =
        format!("organizations/acme/projects/p/environments/dev{}/resources/y", world.data.display());
    let call = context(&resource, &format!("op/y/{}", world.data.display()));
    let outcome = world.apply("postgres-database", "sql-database", &call, json!({})).await;
    let failure = outcome.failure().unwrap();
    assert_eq!(failure.code, FailureCode::Internal, "{failure}");
    assert!(failure.partial.is_none(), "{failure:?}");
    let digest = pavior_core::digest::sha256_hex(format!("{resource}\0{}", call.idempotency_key).as_bytes());
    let sql = format!("SELECT rolname FROM pg_roles WHERE rolname LIKE 'p_acme_y_{}%'", &digest[..12]);
    let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, sql);
    assert!(admin.query_all_raw(statement).await.unwrap().is_empty());
    assert_eq!(files(&world.data.join("drivers/postgres-database/things")), [""; 0]);
    admin.execute_unprepared(&format!("DROP ROLE {half}")).await.unwrap();
}

/// Names come from callers, and from records that a caller names: none leads out of the folder of its organization.
#[tokio::test]
async fn no_name_leads_elsewhere() {
    let world = World::new().await;
    let made = world.repository("p", &[]).await;
    let repository = world.repository_path(&made).display().to_string();
    let stranger = world.data.join("artifacts/victim/kept");
    std::fs::create_dir_all(stranger.parent().unwrap()).unwrap();
    std::fs::write(&stranger, "kept").unwrap();
    let absolute = world.data.join("artifacts/victim").display().to_string();
    let kinds = [
        ("git", "git-repository", json!({})),
        ("sqlite-database", "sql-database", json!({})),
        ("pipeline", "ci-pipeline", json!({ "repository": repository, "steps": [] })),
        ("process", "workload", json!({ "command": [&stranger] })),
    ];
    for name in ["../victim", "..", &absolute, "", "a\0b"] {
        for (number, (driver, kind, inputs)) in kinds.iter().enumerate() {
            let mut foreign = context(WEB, &format!("op/{name}/{number}"));
            name.clone_into(&mut foreign.organization);
            let outcome = world.apply(driver, kind, &foreign, inputs.clone()).await;
            assert!(outcome.failure().is_some(), "{driver} in {name:?}");
            // Of a thing whose record is damaged only the name is known.
            for identity in [name.to_owned(), format!("acme/{name}")] {
                let record = pavior_core::digest::sha256_hex(identity.as_bytes());
                let damaged = world.data.join("drivers").join(driver).join("damaged");
                std::fs::write(damaged.join(format!("things-{record}.json")), "{").unwrap();
                let call = context(WEB, &format!("op/{identity}/{number}/destroy"));
                world.destroy(driver, kind, &call, &identity).await;
                assert!(
                    stranger.is_file() && world.data.join("artifacts").is_dir(),
                    "{driver}: {identity:?}"
                );
            }
        }
        // As what is there already: without a name it is made.
        for (driver, kind, inputs) in kinds[..3].iter().filter(|_| !name.is_empty()) {
            let call = context(WEB, &format!("op/{name}/{driver}/again"));
            let prior = Success { identity: name.to_owned(), ..Success::default() };
            let outcome = world.apply_over(driver, kind, &call, inputs.clone(), Some(&prior), &[]).await;
            assert!(outcome.failure().is_some(), "{driver} over {name:?}");
        }
        let wanted = pavior_driver::ReadArtifactRequest {
            organization: name.to_owned(),
            digest: pavior_core::digest::Digest::of(b"kept"),
        };
        let failure = world.driver("pipeline").read_artifact(wanted).await.unwrap_err();
        assert_eq!(failure.code, FailureCode::NotFound, "{name:?}");
    }
}
