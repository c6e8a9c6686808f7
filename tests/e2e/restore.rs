//! Each database set back to an older copy in turn, lost, swapped, or left without its key: noticed, named, and gone on
//! from with `pavior restore`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use pavior::cli::apply::{self};
use pavior::serve::{DEV_OPERATOR, System};
use pavior::starter::{self, Databases};
use pavior_core::principal::INSTALLATION;
use pavior_proto::pavior::audit::v1::AuditEvent;
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_proto::pavior::r#type::v1::principal::Kind;
use pavior_store::StoreError;
use pavior_testkit::db::{self, TestDb};
use pavior_tests::{binary, details};
use sea_orm::{ConnectionTrait, Statement};
use serde_json::Value;
use tonic::Code;

use crate::site::{ACCEPT, LIMIT, Site, role, small_project, template};

/// Lets what was done in a copy be yet to be done in it: as a copy is that was taken a moment before.
pub(crate) async fn queue_again(copy: &TestDb) -> Result<()> {
    let store = copy.connect().await;
    let queued = store.upkeep::<(), StoreError, _>("a test", |tx| {
        Box::pin(async move {
            for sql in [
                "UPDATE step SET state = 'READY', fence = fence + 1, end_time = NULL",
                "UPDATE operation SET state = 'QUEUED', end_time = NULL",
            ] {
                tx.execute_unprepared(sql).await?;
            }
            Ok(())
        })
    });
    queued.await?;
    Ok(store.close().await?)
}

/// The states of the first operation and of all its steps.
pub(crate) async fn stands(copy: &TestDb) -> Result<Vec<String>> {
    let store = copy.connect().await;
    let mut states = Vec::new();
    for table in ["operation", "step"] {
        let sql = format!("SELECT DISTINCT state FROM {table} ORDER BY state");
        let statement = Statement::from_string(store.backend(), sql);
        for row in store.read().query_all_raw(statement).await? {
            states.push(row.try_get("", "state")?);
        }
    }
    store.close().await?;
    Ok(states)
}

/// Why a condition of readiness is not met; nothing when it is.
async fn unmet(system: &System, name: &str) -> Result<Option<String>> {
    let report: Value = reqwest::get(format!("http://{}/readyz", system.admin())).await?.json().await?;
    let conditions = report["conditions"].as_array().into_iter().flatten();
    let mut reasons = conditions.filter(|condition| condition["name"] == name).map(|c| c["reason"].as_str());
    Ok(reasons.next().flatten().map(str::to_owned))
}

/// While the histories do not fit: changes are refused and say what to do, reads go on, readiness names it.
async fn refuses_changes(site: &Site, system: &System, service: &str) -> Result<()> {
    let (until, name) = (Instant::now() + LIMIT, format!("{service} outbox"));
    let why = loop {
        if let Some(why) = unmet(system, &name).await? {
            break why;
        }
        ensure!(Instant::now() < until, "`{name}` stays well");
        tokio::task::yield_now().await;
    };
    ensure!(why.contains("older copy") && why.contains("pavior restore"), "{why}");
    let operator = site.person(system, DEV_OPERATOR)?;
    let list =
        catalog::ListTemplatesRequest { parent: "organizations/acme".to_owned(), ..Default::default() };
    ensure!(!operator.templates().list_templates(list).await?.into_inner().templates.is_empty());
    let documents = if service == "policy" { [role(99)] } else { [template(99)] };
    // Whichever of the three it is: rights that are older than they seem allow nobody to change anything.
    let alice = site.person(system, "alice")?;
    let refused = alice.projects().create_project(small_project(&alice, "project-99")?).await;
    let mut refused = vec![refused.err().context("provisioning takes a change")?];
    if service != "provisioning" {
        let Err(error) = apply::apply(&operator, &documents, |_, _| {}).await else {
            bail!("{service} takes a change")
        };
        let status = error.chain().find_map(|cause| cause.downcast_ref::<tonic::Status>());
        refused.push(status.context("a status")?.clone());
    }
    for status in refused {
        let (reason, _) = details(&status);
        ensure!(
            (status.code(), reason.as_str()) == (Code::Unavailable, "RESTORE_NEEDED"),
            "{reason} {status}"
        );
        ensure!(status.message().contains("pavior restore"), "{status}");
        ensure!(pavior_rpc::problem::from_status(&status).retry_after.is_none(), "no use: {status:?}");
    }
    Ok(())
}

/// What was changed in each database after the copy, by name.
fn lost(service: &str) -> &'static str {
    match service {
        "catalog" => "organizations/acme/templates/note-1 (templates.create",
        "policy" => "organizations/acme/roles/note-1 (roles.create",
        _ => "organizations/acme/projects/project-1 (projects.create",
    }
}

/// A client does not wait for what only an operator ends.
fn ends_at_once(site: &Site, system: &System) -> Result<()> {
    let output = Command::new(binary()?)
        .args([
            "project",
            "create",
            "project-98",
            "--template",
            "small",
            "--owner",
            "storefront",
            "--no-wait",
        ])
        .env("PAVIOR_SERVER", system.server())
        .env("PAVIOR_ORGANIZATION", "acme")
        .env("PAVIOR_TOKEN", site.token("alice")?)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.contains("RESTORE_NEEDED") && said.contains("pavior restore"), "{said}");
    ensure!(!said.contains("trying again") && !said.contains("try again"), "{said}");
    ensure!(output.status.code() == Some(7), "{output:?}");
    Ok(())
}

/// What `pavior doctor` finds of the areas that have to do with a restore; `admin` is where the process should answer.
pub(crate) fn diagnosed(site: &Site, admin: &str, server: &str) -> Result<Vec<Value>> {
    let url = format!("http://{admin}");
    let mut command = site.command(&["-o", "json", "doctor", "--admin", &url, "--server", server])?;
    let output = command.env("PAVIOR_TOKEN", site.token(DEV_OPERATOR)?).output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout)?;
    Ok(said["findings"].as_array().context("findings")?.clone())
}

/// Before the restore the doctor names what is lost and the one thing to do, and nothing that cannot work yet.
fn doctor_says_what_to_do(site: &Site, findings: &[Value], service: &str) -> Result<()> {
    let of = |area: &str| findings.iter().filter(|found| found["area"] == area).collect::<Vec<_>>();
    let restore = of("restore");
    ensure!(!restore.is_empty(), "{findings:?}");
    let command = format!("`pavior restore --set data_dir={}", site.data().display());
    for found in &restore {
        let advice = found["advice"].as_str().context("advice")?;
        ensure!(advice.contains("stop the platform") && advice.contains(&command), "{advice}");
        ensure!(
            !advice.contains('\n') && advice.contains("--accept-lost-records") == (service == "audit"),
            "{advice}"
        );
        ensure!(!advice.contains("postgres://"), "{advice}");
    }
    let what = restore.iter().map(|found| found["what"].to_string()).collect::<String>();
    ensure!(service == "audit" || what.contains(lost(service)), "{what}");
    ensure!(what.contains("was set back"), "{what}");
    let resources = of("resources");
    ensure!(resources.len() == 1 && resources[0]["level"] == "unchecked", "{findings:?}");
    ensure!(of("operations").is_empty(), "{findings:?}");
    Ok(())
}

/// A process that refuses changes does not call itself ready.
fn says_so_at_the_start(site: &Site, service: &str) -> Result<()> {
    let mut command = site.command(&["serve", "--all", "--set", "development.issuer=true"])?;
    for listener in ["gateway", "admin", "git"] {
        command.arg("--set").arg(format!("listen.{listener}=127.0.0.1:0"));
    }
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stderr.take().context("standard error")?).lines();
    let mut said = String::new();
    for line in lines {
        let line = line?;
        said.push_str(&line);
        said.push('\n');
        if line.contains("what was lost:") || line.contains("is ready") {
            break;
        }
    }
    child.kill()?;
    child.wait()?;
    let of = if service == "provisioning" { " of provisioning" } else { "" };
    ensure!(
        said.contains(&format!("pavior answers reads and refuses changes{of} until a restore")),
        "{said}"
    );
    ensure!(said.contains("stop the platform, run `pavior restore`"), "{said}");
    ensure!(!said.contains("is ready"), "{said}");
    ensure!(said.contains("no workload is started") == (service == "provisioning"), "{said}");
    Ok(())
}

/// What is seen before the restore: by a start, by callers, and by the doctor.
async fn is_noticed(site: &Site, service: &'static str) -> Result<()> {
    if service == "audit" {
        let why = site.refused().await?;
        ensure!(
            why.contains("records, but") && why.contains("`pavior restore --accept-lost-records"),
            "{why}"
        );
        doctor_says_what_to_do(site, &diagnosed(site, "127.0.0.1:1", "http://127.0.0.1:1")?, service)?;
    } else {
        let system = site.start().await?;
        refuses_changes(site, &system, service).await?;
        if service == "provisioning" {
            ends_at_once(site, &system)?;
        }
        let findings = diagnosed(site, &system.admin().to_string(), &system.server())?;
        doctor_says_what_to_do(site, &findings, service)?;
        system.stop().await?;
        says_so_at_the_start(site, service)?;
    }
    Ok(())
}

/// After the restore changes are taken, and the record says what was lost, and by whom it was accepted.
pub(crate) async fn goes_on(site: &Site, service: &'static str, asked: Option<&str>) -> Result<()> {
    let system = site.start().await?;
    site.change(&system, 2).await?;
    if let Some(asked) = asked {
        site.is_void(&system, asked).await?;
    }
    let said = site.records(&system, "acme", "event.action = \"platform.restore\"").await?;
    let events: Vec<_> = said.iter().filter_map(|record| record.event.as_ref()).collect();
    let record = events.first().context("the gap is not in the record")?;
    let after = |event: &&AuditEvent| {
        event.change.as_ref().map(|change| String::from_utf8_lossy(&change.after).into_owned())
    };
    let changes: Vec<String> = events.iter().filter_map(after).collect();
    let name = lost(service).split(' ').next().unwrap_or_default();
    ensure!(service == "audit" || changes.iter().any(|change| change.contains(name)), "{changes:?}");
    let who = record.principal.as_ref().context("a principal")?;
    ensure!(
        who.kind() == Kind::Operator && who.name.starts_with("organizations/pavior/operators/"),
        "{who:?}"
    );
    site.wait_for_record(&system, INSTALLATION, "event.action = \"platform.restore\"").await?;
    system.stop().await?;
    site.verify().await
}

async fn set_back(postgres: bool, service: &'static str) -> Result<()> {
    let Some(mut site) = Site::new(postgres).await? else { return Ok(()) };
    let copy = site.databases.get(service).context("a database")?.copy().await;
    let system = site.start().await?;
    site.change(&system, 1).await?;
    let asked = match service {
        "provisioning" => Some(site.ask(&system, 1).await?),
        _ => None,
    };
    system.stop().await?;
    let (output, said) = site.restore(&["--dry-run"])?;
    ensure!(output.status.success() && said["findings"] == serde_json::json!([]), "{output:?}");

    if service == "provisioning" {
        queue_again(&copy).await?;
    }
    site.databases.insert(service, copy);
    is_noticed(&site, service).await?;
    if service == "provisioning" {
        let states = stands(site.databases.get(service).context("a database")?).await?;
        ensure!(states == ["QUEUED", "READY"], "it went on by itself: {states:?}");
    }
    let (output, said) = site.restore(&["--dry-run"])?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let found = said["findings"].to_string();
    ensure!(found.contains("set back") || found.contains("older"), "{found}");
    ensure!(found.contains(service), "{found}");
    ensure!(service != "provisioning" || found.contains("under way"), "{found}");
    ensure!(service == "audit" || found.contains(lost(service)), "{found}");
    let next = said["next"].as_str().context("what to do next")?;
    ensure!(next.contains("--accept-lost-records --reason") == (service == "audit"), "{next}");
    if service == "audit" {
        asks_for_lost_records(&site)?;
    }
    let accept = if service == "audit" { &ACCEPT[..] } else { &[] };
    for expected in ["set back", ""] {
        let (output, said) = site.restore(accept)?;
        ensure!(output.status.success(), "{output:?}");
        let found = said["findings"].to_string();
        ensure!(if expected.is_empty() { found == "[]" } else { found.contains(expected) }, "{found}");
    }

    if service == "provisioning" {
        let states = stands(site.databases.get(service).context("a database")?).await?;
        ensure!(states.first().is_some_and(|state| state == "STUCK"), "{states:?}");
    }

    goes_on(&site, service, asked.as_deref()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn catalog_set_back_on_sqlite() -> Result<()> {
    set_back(false, "catalog").await
}

#[tokio::test(flavor = "multi_thread")]
async fn catalog_set_back_on_postgres() -> Result<()> {
    set_back(true, "catalog").await
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_set_back_on_sqlite() -> Result<()> {
    set_back(false, "policy").await
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_set_back_on_postgres() -> Result<()> {
    set_back(true, "policy").await
}

#[tokio::test(flavor = "multi_thread")]
async fn provisioning_set_back_on_sqlite() -> Result<()> {
    set_back(false, "provisioning").await
}

#[tokio::test(flavor = "multi_thread")]
async fn provisioning_set_back_on_postgres() -> Result<()> {
    set_back(true, "provisioning").await
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_set_back_on_sqlite() -> Result<()> {
    set_back(false, "audit").await
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_set_back_on_postgres() -> Result<()> {
    set_back(true, "audit").await
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_foreign_and_swapped_databases_and_lost_keys_are_refused_with_what_to_do() -> Result<()> {
    let mut site = Site::new(false).await?.context("SQLite")?;
    let other = Site::new(false).await?.context("SQLite")?;

    // Empty: at first, and when it was migrated meanwhile.
    let own = site.databases.insert("catalog", db::sqlite()).context("a database")?;
    let why = site.refused().await?;
    ensure!(why.contains("the database of catalog is empty") && why.contains("pavior restore"), "{why}");
    let empty = site.databases.insert("catalog", own).context("a database")?;
    drop(empty);

    // Of another installation, and of another service.
    let foreign = other.databases.get("policy").context("a database")?.copy().await;
    let own = site.databases.insert("policy", foreign).context("a database")?;
    let why = site.refused().await?;
    ensure!(why.contains("the database of policy belongs to installation"), "{why}");
    let swapped = site.databases.get("catalog").context("a database")?.copy().await;
    site.databases.insert("policy", swapped);
    let why = site.refused().await?;
    ensure!(why.contains("`policy.database.url` is the database of catalog"), "{why}");
    site.databases.insert("policy", own);

    // A folder of another installation.
    let (mine, theirs) = (site.file("installation"), other.file("installation"));
    let id = std::fs::read_to_string(&mine)?;
    std::fs::copy(theirs, &mine)?;
    let why = site.refused().await?;
    ensure!(why.contains("belongs to installation") && why.contains("the folder"), "{why}");
    std::fs::write(&mine, id)?;

    for key in ["sealing", "page-token", "audit-signing.pem"] {
        lost_key(&site, &other, key).await?;
    }
    let system = site.start().await?;
    site.change(&system, 1).await?;
    system.stop().await
}

/// Missing: not made anew. Another one: not used.
async fn lost_key(site: &Site, other: &Site, key: &str) -> Result<()> {
    let (path, theirs) = (site.file("keys").join(key), other.file("keys").join(key));
    let own = std::fs::read(&path)?;
    std::fs::remove_file(&path)?;
    let why = site.refused().await?;
    ensure!(why.contains(&format!("{key}` is missing")) && !exists(&path), "{why}");
    std::fs::copy(theirs, &path)?;
    let why = site.refused().await?;
    ensure!(why.contains("is not the one that the database of"), "{why}");
    std::fs::write(&path, own)?;
    Ok(())
}

fn exists(path: &Path) -> bool {
    path.exists()
}

/// Nobody gives up records without saying so.
fn asks_for_lost_records(site: &Site) -> Result<()> {
    let (output, _) = site.restore(&[])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && said.contains("--accept-lost-records"), "{output:?}");
    Ok(())
}

async fn audit_lost(postgres: bool) -> Result<()> {
    let Some(mut site) = Site::new(postgres).await? else { return Ok(()) };
    let empty = if postgres { db::postgres().await.context("PostgreSQL")? } else { db::sqlite() };
    site.databases.insert("audit", empty);
    // To look changes nothing, so the second look finds the same.
    for _ in 0..2 {
        let (output, said) = site.restore(&["--dry-run"])?;
        ensure!(output.status.code() == Some(1), "{output:?}");
        let found = said["findings"].to_string();
        for service in ["catalog", "policy", "provisioning"] {
            let wanted = format!("of {service}, epoch");
            ensure!(found.contains(&wanted) && found.contains("are missing"), "{service}: {found}");
        }
        ensure!(found.contains("\"log\":\"acme\""), "{found}");
        ensure!(said["next"].as_str().is_some_and(|next| next.contains("--accept-lost-records")), "{said}");
    }
    asks_for_lost_records(&site)?;
    let (output, said) = site.restore(&ACCEPT)?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(said["next"].as_str().is_some_and(|next| next.contains("`pavior doctor`")), "{said}");
    let system = site.start().await?;
    site.change(&system, 1).await?;
    site.wait_for_record(&system, INSTALLATION, "event.action = \"platform.restore\"").await?;
    system.stop().await?;
    site.verify().await
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_lost_on_sqlite() -> Result<()> {
    audit_lost(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_lost_on_postgres() -> Result<()> {
    audit_lost(true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn platform_goes_on_without_a_catalog_that_is_lost() -> Result<()> {
    let mut site = Site::new(false).await?.context("SQLite")?;
    site.databases.insert("catalog", db::sqlite());
    let (output, said) = site.restore(&[])?;
    ensure!(output.status.success(), "{output:?}");
    let found = said["findings"].to_string();
    ensure!(found.contains("the database of catalog was lost"), "{found}");
    let system = site.start().await?;
    let operator = site.person(&system, DEV_OPERATOR)?;
    apply::apply(&operator, &starter::documents(Databases::Sqlite)?, |_, _| {}).await?;
    site.wait_for_record(&system, INSTALLATION, "event.action = \"platform.restore\"").await?;
    system.stop().await?;
    site.verify().await
}
