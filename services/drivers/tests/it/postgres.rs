use pavior_driver::conformance::{Case, Subject, run};
use pavior_driver::{ExposeSecret, FailureCode, ListRequest, Lookup, Observation, SecretString};
use sea_orm::{ConnectionTrait, Database};
use serde_json::json;

use crate::world::{World, context, success};

async fn world() -> Option<(World, pavior_testkit::db::TestDb)> {
    let db = pavior_testkit::db::postgres().await?;
    let url = SecretString::from(db.url.clone());
    Some((World::with(|config| config.postgres_url = Some(url)).await, db))
}

/// How many connections a database takes, as its own user reads it.
pub(crate) async fn connection_limit(url: &str, database: &str) -> i32 {
    let own = Database::connect(url).await.unwrap();
    let sql = format!("SELECT datconnlimit AS n FROM pg_database WHERE datname = '{database}'");
    let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, sql);
    own.query_one_raw(statement).await.unwrap().unwrap().try_get("", "n").unwrap()
}

#[tokio::test]
async fn postgres_conforms() {
    let Some((world, _db)) = world().await else { return };
    let unique = world.data.to_string_lossy().into_owned();
    let subject = Subject {
        driver: world.driver("postgres-database"),
        resource_type: "sql-database".to_owned(),
        organization: "acme".to_owned(),
        run: "kit".to_owned(),
        case: Box::new(move |name| Case {
            // The server is shared by all tests: names carry this test's directory.
            resource: format!("organizations/acme/projects/p/environments/dev{unique}/resources/{name}"),
            inputs: json!({"size": "small"}),
            changed: Some(json!({"size": "large"})),
            failing: None,
            sensitive: Vec::new(),
        }),
    };
    run(&subject).await.assert();
}

#[tokio::test]
async fn a_role_reaches_its_own_database_only() {
    let Some((world, db)) = world().await else { return };
    let mut made = Vec::new();
    for name in ["one", "two"] {
        let resource = format!(
            "organizations/acme/projects/p/environments/dev{}/resources/{name}",
            world.data.display()
        );
        let call = context(&resource, &format!("op/{name}/{}", world.data.display()));
        let result = success(world.apply("postgres-database", "sql-database", &call, json!({})).await);
        made.push((call, result));
    }
    let url = |index: usize| made[index].1.secrets.get("url").unwrap().expose_secret().to_owned();
    let own = Database::connect(url(0)).await.unwrap();
    own.execute_unprepared("CREATE TABLE visits (n BIGINT)").await.unwrap();
    own.execute_unprepared("INSERT INTO visits VALUES (1)").await.unwrap();
    let (first, second) = (made[0].1.identity.clone(), made[1].1.identity.clone());
    let own_url = url(0);
    let (credentials, place) = own_url.rsplit_once('@').unwrap();
    let foreign = format!("{credentials}@{}", place.replacen(&first, &second, 1));
    assert_ne!(foreign, own_url);
    let refused = Database::connect(foreign).await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("permission denied"), "{refused}");
    // The server holds a verifier, not the password.
    let admin = Database::connect(db.url.clone()).await.unwrap();
    let sql = format!("SELECT rolpassword AS p FROM pg_authid WHERE rolname = '{first}_app'");
    let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, sql);
    let stored: String = admin.query_one_raw(statement).await.unwrap().unwrap().try_get("", "p").unwrap();
    let password = made[0].1.secrets.get("password").unwrap().expose_secret().to_owned();
    assert!(stored.starts_with("SCRAM-SHA-256$4096:") && !stored.contains(&password));
    // Destroy ends the open connection and leaves no role.
    for (call, result) in &made {
        let mut call = call.clone();
        call.idempotency_key.push_str("/destroy");
        success(world.destroy("postgres-database", "sql-database", &call, &result.identity).await);
    }
    assert!(own.execute_unprepared("SELECT 1").await.is_err());
    let sql = format!(
        "SELECT count(*) AS n FROM pg_roles WHERE rolname LIKE '{first}%' OR rolname LIKE '{second}%'"
    );
    let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, sql);
    let left: i64 = admin.query_one_raw(statement).await.unwrap().unwrap().try_get("", "n").unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn hostile_names_are_refused_before_any_statement() {
    let Some((world, _db)) = world().await else { return };
    let call = context("organizations/acme/projects/p/resources/x", "op/x/1");
    let outcome = world
        .apply("postgres-database", "sql-database", &call, json!({"name": "x\"; DROP ROLE postgres; --"}))
        .await;
    assert_eq!(outcome.failure().unwrap().code, FailureCode::InvalidArgument);
    // A resource name that is no name at all only ever becomes letters, digits and underscores.
    let call =
        context(&format!("organizations/acme/resources/a\"'; DROP {}", world.data.display()), "op/y/1");
    let made = success(world.apply("postgres-database", "sql-database", &call, json!({})).await);
    assert!(
        made.identity.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
        "{}",
        made.identity
    );
    success(world.destroy("postgres-database", "sql-database", &call, &made.identity).await);
}

#[tokio::test]
async fn an_unreachable_server_is_a_retryable_failure_and_down() {
    let url = SecretString::from("postgres://nobody@127.0.0.1:1/postgres".to_owned());
    let world = World::with(|config| config.postgres_url = Some(url)).await;
    let call = context("organizations/acme/projects/p/resources/x", "op/x/1");
    let outcome = world.apply("postgres-database", "sql-database", &call, json!({})).await;
    let failure = outcome.failure().unwrap();
    assert!(failure.retryable && failure.code == FailureCode::Unavailable, "{failure}");
    assert!(!failure.message.contains("127.0.0.1"));
    assert_ne!(world.driver("postgres-database").health().await, pavior_driver::Health::Ok);
}

#[tokio::test]
async fn another_replica_takes_over_with_the_same_password() {
    let Some(db) = pavior_testkit::db::postgres().await else { return };
    let replica = async || {
        let url = SecretString::from(db.url.clone());
        World::with(|config| config.postgres_url = Some(url)).await
    };
    let (first, second) = (replica().await, replica().await);
    let call = context(
        &format!("organizations/acme/projects/p/resources/shared{}", first.data.display()),
        &format!("op/shared/{}", first.data.display()),
    );
    let made = success(first.apply("postgres-database", "sql-database", &call, json!({})).await);
    for lookup in [Lookup::Identity(made.identity.clone()), Lookup::Key(call.idempotency_key.clone())] {
        // Only the server tells of it: an apply has to say that the recorded password is the one.
        let seen = second.observe("postgres-database", "sql-database", &call, lookup.clone()).await;
        let Observation::Partial { identity, .. } = seen else { panic!("{seen:?}") };
        assert_eq!(identity.as_ref(), Some(&made.identity));
        let (mut foreign, mut other) = (call.clone(), call.clone());
        foreign.organization = "globex".to_owned();
        other.resource.push_str("/another");
        // The second knows it by the server only, the first by its files.
        for (world, call) in [(&second, &foreign), (&second, &other), (&first, &foreign), (&first, &other)] {
            let seen = world.observe("postgres-database", "sql-database", call, lookup.clone()).await;
            assert!(matches!(seen, Observation::Absent), "{seen:?}");
        }
    }
    // Nor does a removal for another resource take it down.
    for world in [&first, &second] {
        let mut other = call.clone();
        other.resource.push_str("/another");
        other.idempotency_key.push_str("/destroy");
        success(world.destroy("postgres-database", "sql-database", &other, &made.identity).await);
    }
    // The step is done again under its key, and a later change under another one.
    let again = success(second.apply("postgres-database", "sql-database", &call, json!({})).await);
    assert!(again.identity == made.identity && again.secrets.same_as(&made.secrets));
    let third = replica().await;
    let mut change = call.clone();
    change.idempotency_key.push_str("/change");
    let inputs = json!({"size": "medium"});
    let changed =
        third.apply_over("postgres-database", "sql-database", &change, inputs, Some(&made), &[]).await;
    let changed = success(changed);
    assert!(changed.identity == made.identity && changed.secrets.same_as(&made.secrets));

    let listed = third
        .driver("postgres-database")
        .list(ListRequest { page_size: 1_000, page_token: String::new() })
        .await;
    let mine: Vec<_> =
        listed.unwrap().resources.into_iter().filter(|listed| listed.identity == made.identity).collect();
    assert_eq!(mine.len(), 1);
    assert_eq!((&mine[0].resource, &mine[0].key), (&call.resource, &call.idempotency_key));

    success(second.destroy("postgres-database", "sql-database", &call, &made.identity).await);
    let lookup = Lookup::Identity(made.identity.clone());
    let seen = second.observe("postgres-database", "sql-database", &call, lookup).await;
    assert!(matches!(seen, Observation::Absent), "{seen:?}");
}

#[tokio::test]
async fn what_a_call_that_is_gone_left_running_is_waited_for() {
    let Some((world, db)) = world().await else { return };
    let call =
        context(&format!("organizations/acme/projects/p/resources/{}", world.data.display()), "op/z/1");
    let made = success(world.apply("postgres-database", "sql-database", &call, json!({})).await);
    // As the server does for a session whose client was killed in the middle of a long statement.
    let session =
        Database::connect(sea_orm::ConnectOptions::new(db.url.clone()).max_connections(1).to_owned());
    let session = session.await.unwrap();
    let digest = pavior_core::digest::sha256_hex(made.identity.as_bytes());
    let lock = i64::from_be_bytes(digest.as_bytes()[..8].try_into().unwrap());
    session.execute_unprepared(&format!("SELECT pg_advisory_lock({lock})")).await.unwrap();
    let look = async || {
        let lookup = Lookup::Identity(made.identity.clone());
        world.observe("postgres-database", "sql-database", &call, lookup).await
    };
    let seen = look().await;
    assert!(matches!(seen, Observation::Indeterminate { .. }), "{seen:?}");
    let mut end = call.clone();
    end.idempotency_key.push_str("/destroy");
    let destroy = world.destroy("postgres-database", "sql-database", &end, &made.identity);
    let (destroyed, ()) = tokio::join!(destroy, async {
        let sql = format!(
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND (classid::bigint << 32 | objid::bigint) = {lock}"
        );
        let waiting = || sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, sql.clone());
        pavior_testkit::wait_for("the destroy to wait", std::time::Duration::from_secs(20), async || {
            session.query_one_raw(waiting()).await.unwrap().map(drop).ok_or("nobody waits")
        })
        .await;
        session.execute_unprepared(&format!("SELECT pg_advisory_unlock({lock})")).await.unwrap();
    });
    success(destroyed);
    let seen = look().await;
    assert!(matches!(seen, Observation::Absent), "{seen:?}");
}
