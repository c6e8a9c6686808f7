//! A restoration that breaks off, and is run again.

use anyhow::{Context as _, Result, ensure};
use pavior_store::StoreError;
use pavior_testkit::db::TestDb;
use sea_orm::ConnectionTrait as _;
use serde_json::Value;

use crate::restore::{goes_on, queue_again, stands};
use crate::site::Site;

async fn execute(database: &TestDb, statements: Vec<String>) -> Result<()> {
    let store = database.connect().await;
    let done = store.upkeep::<(), StoreError, _>("a test", move |tx| {
        let statements = statements.clone();
        Box::pin(async move {
            for sql in statements {
                tx.execute_unprepared(&sql).await?;
            }
            Ok(())
        })
    });
    done.await?;
    Ok(store.close().await?)
}

/// What is said of the database of provisioning itself.
fn gap(said: &Value) -> Result<String> {
    let mut findings = said["findings"].as_array().context("findings")?.iter().map(Value::to_string);
    findings.find(|found| found.contains("was set back: its changes")).with_context(|| said.to_string())
}

/// A restoration that breaks off before its last step, and is repeated long after: what it has recorded until then waits
/// under numbers that the log knows as others', and for longer than callers' changes may.
async fn goes_on_after_it_broke_off(postgres: bool) -> Result<()> {
    let Some(mut site) = Site::new(postgres).await? else { return Ok(()) };
    let copy = site.databases.get("provisioning").context("a database")?.copy().await;
    let system = site.start().await?;
    site.change(&system, 1).await?;
    let asked = site.ask(&system, 1).await?;
    system.stop().await?;
    queue_again(&copy).await?;
    site.databases.insert("provisioning", copy);
    let (_, said) = site.restore(&["--dry-run"])?;
    let first = gap(&said)?;

    // Only the last step begins an epoch.
    let (breaks, mends) = match postgres {
        true => (
            &[
                "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION 'broken off'; END $$",
                "CREATE TRIGGER broken BEFORE UPDATE ON outbox_epoch FOR EACH ROW \
                 WHEN (NEW.epoch <> OLD.epoch) EXECUTE FUNCTION broken()",
            ][..],
            "DROP TRIGGER broken ON outbox_epoch",
        ),
        false => (
            &["CREATE TRIGGER broken BEFORE UPDATE ON outbox_epoch WHEN NEW.epoch <> OLD.epoch \
               BEGIN SELECT RAISE(ABORT, 'broken off'); END"][..],
            "DROP TRIGGER broken",
        ),
    };
    let copy = site.databases.get("provisioning").context("a database")?;
    execute(copy, breaks.iter().map(|sql| (*sql).to_owned()).collect()).await?;
    let (output, _) = site.restore(&[])?;
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && why.contains("run this again"), "{output:?}");
    let states = stands(copy).await?;
    ensure!(states.first().is_some_and(|state| state == "STUCK"), "{states:?} {output:?}");
    let age = "UPDATE outbox SET create_time = create_time - 3600000000";
    execute(copy, vec![mends.to_owned(), age.to_owned()]).await?;

    let (_, said) = site.restore(&["--dry-run"])?;
    ensure!(gap(&said)? == first, "{said}\n{first}");
    let (output, _) = site.restore(&[])?;
    ensure!(output.status.success(), "{output:?}");
    goes_on(&site, "provisioning", Some(&asked)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn restoration_that_broke_off_goes_on_on_sqlite() -> Result<()> {
    goes_on_after_it_broke_off(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn restoration_that_broke_off_goes_on_on_postgres() -> Result<()> {
    goes_on_after_it_broke_off(true).await
}
