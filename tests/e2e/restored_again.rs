//! A restoration that breaks off, and is run again; and one to when a name was another's.

use anyhow::{Context as _, Result, ensure};
use pavior::cli::{apply, progress};
use pavior::serve::DEV_OPERATOR;
use pavior_proto::pavior::catalog::v1::{Entity, GetEntityRequest};
use pavior_proto::pavior::provisioning::v1::{DeleteProjectRequest, RepairProjectRequest};
use pavior_store::StoreError;
use pavior_testkit::db::TestDb;
use pavior_tests::Person;
use sea_orm::ConnectionTrait as _;
use serde_json::Value;

use crate::restore::{diagnosed, goes_on, queue_again, stands};
use crate::site::{Site, small_project, source};

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

/// A golden path with a repository and an entry of the catalog.
const LISTED: &str = r#"
template: listed
version: 1.0.0
project:
  repository: { type: git-repository, inputs: { skeleton: web-service/python, parameters: { name: "${{ project.id }}" } } }
  entry:
    type: catalog-entity
    inputs: { kind: component, id: "${{ project.id }}", spec: { type: service, lifecycle: production } }
"#;

async fn project(alice: &Person) -> Result<()> {
    let mut request = small_project(alice, "shop")?;
    let project = request.project.as_mut().context("a project")?;
    project.template_version = "organizations/acme/templates/listed/versions/stable".to_owned();
    let made = alice.projects().create_project(request).await?.into_inner();
    progress::conclude(&alice.finish(&made).await?)?;
    Ok(())
}

async fn entry(alice: &Person) -> Result<Entity> {
    let name = "organizations/acme/kinds/component/entities/shop".to_owned();
    let request = GetEntityRequest { name, ..Default::default() };
    Ok(alice.catalog().get_entity(request).await?.into_inner())
}

/// In the life that is lost a project was deleted, and another was made under its name: what that one has is not given to the
/// project that is there again, nor taken down with it.
async fn name_of_another(postgres: bool) -> Result<()> {
    const NAME: &str = "organizations/acme/projects/shop";
    let Some(mut site) = Site::new(postgres).await? else { return Ok(()) };
    let system = site.start().await?;
    let operator = site.person(&system, DEV_OPERATOR)?;
    apply::apply(&operator, &[source(LISTED)], |_, _| {}).await?;
    let alice = site.person(&system, "alice")?;
    project(&alice).await?;
    system.stop().await?;
    let copy = site.databases.get("provisioning").context("a database")?.copy().await;
    let system = site.start().await?;
    let alice = site.person(&system, "alice")?;
    let delete = || DeleteProjectRequest { name: NAME.to_owned(), force: true, ..Default::default() };
    let deleted = alice.projects().delete_project(delete()).await?.into_inner();
    progress::conclude(&alice.finish(&deleted).await?)?;
    project(&alice).await?;
    let theirs = site.file("platform/repositories/acme/shop.git/theirs");
    std::fs::write(&theirs, "")?;
    let their_entry = entry(&alice).await?.uid;
    system.stop().await?;
    site.databases.insert("provisioning", copy);
    let (output, _) = site.restore(&[])?;
    ensure!(output.status.success(), "{output:?}");

    let system = site.start().await?;
    let findings = diagnosed(&site, &system.admin().to_string(), &system.server())?;
    let found = |what: &[&str]| {
        findings.iter().any(|found| what.iter().all(|part| found["what"].to_string().contains(part)))
    };
    for (part, identity) in [("repository", "acme/shop@"), ("entry", &format!("entities/shop#{their_entry}"))]
    {
        ensure!(found(&[identity, "nobody declares it"]), "{findings:#?}");
        ensure!(found(&[&format!("shop/resources/{part}"), "is gone"]), "{findings:#?}");
    }
    let alice = site.person(&system, "alice")?;
    let repair = RepairProjectRequest { name: NAME.to_owned(), ..Default::default() };
    let repaired = alice.projects().repair_project(repair).await?.into_inner();
    let repaired = alice.finish(&repaired).await?;
    ensure!(progress::conclude(&repaired).is_err() && theirs.exists(), "{repaired:?}");
    ensure!(entry(&alice).await?.uid == their_entry, "the entry was taken over");
    let deleted = alice.projects().delete_project(delete()).await?.into_inner();
    progress::conclude(&alice.finish(&deleted).await?)?;
    ensure!(theirs.exists(), "what another project had was taken down");
    ensure!(entry(&alice).await?.uid == their_entry, "the entry was taken down");
    system.stop().await?;
    site.verify().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_project_of_the_name_has_is_not_handed_over_on_sqlite() -> Result<()> {
    name_of_another(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_project_of_the_name_has_is_not_handed_over_on_postgres() -> Result<()> {
    name_of_another(true).await
}
