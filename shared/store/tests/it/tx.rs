//! Connecting, migrations and transactions.

use super::{count, db, sql, store};
use pavior_store::{DatabaseConfig, ErrorKind, Retryable, Store, StoreError};
use sea_orm::{ConnectionTrait as _, DbBackend};
use sea_orm_migration::prelude::{MigrationTrait, MigratorTrait, async_trait};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
enum Error {
    Store(StoreError),
    Refused,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Error::Store(error)
    }
}

impl From<sea_orm::DbErr> for Error {
    fn from(error: sea_orm::DbErr) -> Self {
        Error::Store(error.into())
    }
}

impl Retryable for Error {
    fn is_retryable(&self) -> bool {
        matches!(self, Error::Store(error) if error.is_retryable())
    }
}

async fn insert(store: &Store, id: i64, value: i64) -> Result<(), StoreError> {
    store
        .upkeep("a test", move |tx| {
            Box::pin(async move {
                let text = "INSERT INTO counters (id, value) VALUES ($1, $2)";
                tx.execute_raw(sql(tx, text, [id.into(), value.into()])).await?;
                Ok::<_, StoreError>(())
            })
        })
        .await
}

async fn value(store: &Store, id: i64) -> i64 {
    let statement = sql(store.read(), "SELECT value FROM counters WHERE id = $1", [id.into()]);
    store.read().query_one_raw(statement).await.unwrap().unwrap().try_get("", "value").unwrap()
}

#[tokio::test]
async fn error_undoes_and_unique_is_recognized() {
    db::both(|db| async move {
        let store = store(&db).await;
        let result: Result<(), Error> = store
            .upkeep("a test", move |tx| {
                Box::pin(async move {
                    tx.execute_raw(sql(tx, "INSERT INTO counters (id, value) VALUES (1, 1)", [])).await?;
                    Err(Error::Refused)
                })
            })
            .await;
        assert!(matches!(result, Err(Error::Refused)));
        assert_eq!(count(&store, "counters").await, 0, "{}", db.kind);
        insert(&store, 1, 5).await.unwrap();
        let error = insert(&store, 1, 6).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unique, "{}", db.kind);
        assert_eq!(error.to_string(), "database error");
        assert_eq!(value(&store, 1).await, 5);
    })
    .await;
}

#[tokio::test]
async fn migrating_twice_and_concurrently_is_harmless() {
    db::both(|db| async move {
        let store = store(&db).await;
        let again = || pavior_store::migrate::<super::Tables>(&store);
        let (a, b, c) = tokio::join!(again(), again(), again());
        a.and(b).and(c).unwrap();
        store.check().await.unwrap();
    })
    .await;
}

/// The tables of another version, which has a migration that this one does not.
struct Others;

#[async_trait::async_trait]
impl MigratorTrait for Others {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        super::Tables::migrations().into_iter().filter(|migration| migration.name() != "things_1").collect()
    }
}

#[tokio::test]
async fn a_database_of_another_version_is_refused() {
    db::both(|db| async move {
        let store = store(&db).await;
        let refused = pavior_store::migrate::<Others>(&store).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the database was made by another version of Pavior (migration `things_1`); run that version, or \
             begin with an empty database"
        );
        // Nothing has happened to it.
        pavior_store::migrate::<super::Tables>(&store).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_increments_are_retried_until_none_is_lost() {
    db::both(|db| async move {
        let store = store(&db).await;
        insert(&store, 1, 0).await.unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let tasks = (0..8).map(|_| {
            let (store, runs) = (store.clone(), runs.clone());
            tokio::spawn(async move {
                for _ in 0..5 {
                    let runs = runs.clone();
                    store
                        .upkeep("a test", move |tx| {
                            runs.fetch_add(1, Ordering::SeqCst);
                            Box::pin(async move {
                                if tx.get_database_backend() == DbBackend::Postgres {
                                    tx.execute_unprepared("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
                                        .await?;
                                }
                                let read = sql(tx, "SELECT value FROM counters WHERE id = 1", []);
                                let row = tx.query_one_raw(read).await?;
                                let old: i64 = row.map(|r| r.try_get("", "value")).transpose()?.unwrap_or(0);
                                tokio::task::yield_now().await;
                                let text = "UPDATE counters SET value = $1 WHERE id = 1";
                                tx.execute_raw(sql(tx, text, [(old + 1).into()])).await?;
                                Ok::<_, StoreError>(())
                            })
                        })
                        .await
                        .unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(value(&store, 1).await, 40, "{}", db.kind);
        if db.kind == "postgres" {
            assert!(runs.load(Ordering::SeqCst) > 40, "expected retries");
        }
    })
    .await;
}

#[tokio::test]
async fn a_retryable_error_runs_the_closure_again_and_gives_up_in_the_end() {
    db::both(|db| async move {
        let store = store(&db).await;
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let second: Result<usize, StoreError> = store
            .upkeep("a test", move |_| {
                let n = counted.fetch_add(1, Ordering::SeqCst);
                Box::pin(async move { if n == 0 { Err(StoreError::Concurrent) } else { Ok(n) } })
            })
            .await;
        assert_eq!(second.unwrap(), 1);
        runs.store(0, Ordering::SeqCst);
        let counted = runs.clone();
        let never: Result<(), StoreError> = store
            .upkeep("a test", move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                Box::pin(async move { Err(StoreError::Concurrent) })
            })
            .await;
        assert!(matches!(never, Err(StoreError::Concurrent)));
        assert_eq!(runs.load(Ordering::SeqCst), 11, "{}", db.kind);
    })
    .await;
}

#[tokio::test]
async fn sqlite_commits_are_durable_and_foreign_keys_hold() {
    let db = db::sqlite();
    let store = store(&db).await;
    for (pragma, want) in [("synchronous", "2"), ("journal_mode", "wal"), ("foreign_keys", "1")] {
        let got: Result<String, StoreError> = store
            .upkeep("a test", move |tx| {
                Box::pin(async move {
                    let text = format!("SELECT CAST({pragma} AS TEXT) AS v FROM pragma_{pragma}");
                    let row = tx.query_one_raw(sql(tx, &text, [])).await?;
                    Ok(row.map(|r| r.try_get("", "v")).transpose()?.unwrap_or_default())
                })
            })
            .await;
        assert_eq!(got.unwrap(), want, "{pragma}");
    }
}

/// A copy that is put back beside the changes of the database that it replaces.
#[tokio::test]
async fn a_file_with_the_changes_of_another_is_refused_and_left_as_it_is() {
    use sea_orm::sqlx::{Connection as _, SqliteConnection, query};
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let copy = |from: &str, to: &str| std::fs::copy(at(from), at(to)).unwrap();
    let mut live =
        SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", at("live.db").display())).await.unwrap();
    let fill = "INSERT INTO thing (name) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
                SELECT hex(randomblob(40)) FROM n";
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    let make = "CREATE TABLE thing (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)";
    for statement in ["PRAGMA journal_mode = WAL", make, fill, checkpoint] {
        query(statement).execute(&mut live).await.unwrap();
    }
    copy("live.db", "old.db");
    for statement in [fill, checkpoint, fill] {
        query(statement).execute(&mut live).await.unwrap();
    }
    let config = |name: &str| DatabaseConfig::at(format!("sqlite://{}?mode=rwc", at(name).display()));
    // As a crash leaves it.
    copy("live.db", "crashed.db");
    copy("live.db-wal", "crashed.db-wal");
    Store::connect(&config("crashed.db"), "test").await.unwrap().close().await.unwrap();
    copy("live.db-wal", "old.db-wal");
    let before = std::fs::read(at("old.db")).unwrap();
    let error = Store::connect(&config("old.db"), "test").await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { path, .. } if path.ends_with("old.db")), "{error:?}");
    assert_eq!(std::fs::read(at("old.db")).unwrap(), before);
    // Nor is the log taken for nobody's where the file is somewhere else for a moment: it would be removed.
    let log = std::fs::read(at("old.db-wal")).unwrap();
    std::fs::rename(at("old.db"), at("elsewhere.db")).unwrap();
    let error = Store::connect(&config("old.db"), "test").await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Damaged { found, .. } if found == "the file is missing"),
        "{error:?}"
    );
    // Nor where a link leads to it.
    std::os::unix::fs::symlink("old.db", at("link.db")).unwrap();
    let error = Store::connect(&config("link.db"), "test").await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Damaged { found, .. } if found == "the file is missing"),
        "{error:?}"
    );
    assert_eq!((std::fs::read(at("old.db-wal")).unwrap(), at("old.db").exists()), (log, false));
    std::fs::rename(at("elsewhere.db"), at("old.db")).unwrap();
    for name in ["old.db-wal", "old.db-shm"] {
        std::fs::remove_file(at(name)).unwrap();
    }
    Store::connect(&config("old.db"), "test").await.unwrap();
}

#[tokio::test]
async fn readers_refuse_to_write() {
    db::both(|db| async move {
        let store = store(&db).await;
        let error = store.read().execute_unprepared("DELETE FROM counters").await.unwrap_err().to_string();
        assert!(error.contains("readonly") || error.contains("read-only"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_second_store_on_the_same_file_is_refused_until_the_first_is_gone() {
    let db = db::sqlite();
    let first = store(&db).await;
    let error = Store::connect(&db.config(), "test").await.unwrap_err();
    let message = error.to_string();
    assert!(message.contains("in use by another process (process "), "{message}");
    assert!(message.contains("test.db"), "{message}");
    first.close().await.unwrap();
    drop(first);
    Store::connect(&db.config(), "test").await.unwrap();
}

#[tokio::test]
async fn another_process_on_the_same_file_is_refused() {
    let db = db::sqlite();
    let first = store(&db).await;
    // The same file lock as a second process would ask for, by a program that is not ours.
    let file = db.url.trim_start_matches("sqlite://").trim_end_matches("?mode=rwc");
    let held = std::process::Command::new("flock").args(["-n", &format!("{file}.lock"), "true"]).status();
    match held {
        Ok(status) => assert!(!status.success(), "a second process got the lock"),
        Err(error) => println!("SKIP: flock(1): {error}"),
    }
    drop(first);
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_unavailable() {
    let mut config = DatabaseConfig::at("postgres://u:secret@127.0.0.1:1/none");
    config.acquire_timeout_ms = 300;
    let error = Store::connect(&config, "test").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!format!("{error} {error:?}").contains("secret"));
    let error = Store::connect(&DatabaseConfig::at("sqlite::memory:"), "test").await.unwrap_err();
    assert!(error.to_string().contains("SQLite needs a file"));
}
