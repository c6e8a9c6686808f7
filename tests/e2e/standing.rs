//! What is asked for again is looked at: what does not run, or is something else than what is recorded, is put right.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pavior::cli::client::request_id;
use pavior::cli::progress;
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_tests::{Embedded, Person};
use serde_json::json;

use crate::site::Site;

const ENVIRONMENT: &str = "organizations/acme/projects/shop/environments/development";
const LIMIT: Duration = Duration::from_secs(60);

fn update(log_level: &str) -> pb::UpdateEnvironmentRequest {
    let environment = pb::Environment {
        name: ENVIRONMENT.to_owned(),
        parameters: pavior_rpc::convert::to_struct(&json!({ "log_level": log_level })).ok(),
        ..Default::default()
    };
    pb::UpdateEnvironmentRequest {
        environment: Some(environment),
        request_id: request_id(),
        ..Default::default()
    }
}

fn steps(operation: &Operation) -> Result<Vec<String>> {
    Ok(progress::metadata(operation)?.steps.into_iter().map(|step| step.step_id).collect())
}

/// What an update would do, and why.
async fn planned(person: &Person, log_level: &str) -> Result<Vec<(String, String)>> {
    let request = pb::UpdateEnvironmentRequest { validate_only: true, ..update(log_level) };
    let operation = person.projects().update_environment(request).await?.into_inner();
    let plan = progress::metadata(&operation)?.validated_plan.context("a plan")?;
    let steps = plan.changes.into_iter().filter(|change| change.action() != pb::plan::Action::Noop);
    Ok(steps.map(|change| (change.step_id, change.drift_message)).collect())
}

async fn updated(person: &Person, log_level: &str) -> Result<Vec<String>> {
    let operation = person.projects().update_environment(update(log_level)).await?.into_inner();
    let operation = person.finish(&operation).await?;
    progress::conclude(&operation)?;
    steps(&operation)
}

async fn deployed(person: &Person) -> Result<Vec<String>> {
    let request = pb::CreateDeploymentRequest {
        parent: ENVIRONMENT.to_owned(),
        deployment: Some(pb::Deployment::default()),
        request_id: request_id(),
        ..Default::default()
    };
    let operation = person.deployments().create_deployment(request).await?.into_inner();
    let operation = person.finish(&operation).await?;
    progress::conclude(&operation)?;
    steps(&operation)
}

/// The processes of workloads, with what they were told.
fn processes(data: &Path) -> Result<Vec<(String, String)>> {
    let releases = format!("{}/", data.canonicalize()?.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let read = |name: &str| {
            let text = std::fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&text).replace('\0', "\n")
        };
        let command = read("cmdline");
        let ours = command.lines().any(|word| word.starts_with(&releases) && word.contains("/releases/"));
        if ours && !command.contains("__shim") {
            found.push((entry.file_name().to_string_lossy().into_owned(), read("environ")));
        }
    }
    Ok(found)
}

/// The files of the copies that workloads run from, with what is in them.
fn copies(data: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let files = walkdir::WalkDir::new(data).into_iter().flatten().map(walkdir::DirEntry::into_path);
    let files =
        files.filter(|path| path.is_file() && path.components().any(|part| part.as_os_str() == "releases"));
    files.map(|path| Ok((path.clone(), std::fs::read(&path)?))).collect()
}

async fn until_down(person: &Person) -> Result<()> {
    let until = Instant::now() + LIMIT;
    while person.page("shop", "development").await.is_ok() || planned(person, "info").await?.is_empty() {
        ensure!(Instant::now() < until, "it still answers");
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_was_changed_and_killed_runs_again_after_a_deployment_of_the_same() -> Result<()> {
    let system = Embedded::start().await?;
    let alice = system.person("alice")?;
    alice.create_project("shop").await?;
    ensure!(deployed(&alice).await?.is_empty() && updated(&alice, "info").await?.is_empty());
    let down =
        [("development.workload".to_owned(), "is not running, or only a part of it is left".to_owned())];
    for deploy in [true, false] {
        let right = copies(system.data())?;
        ensure!(!right.is_empty(), "nothing is installed");
        for (path, content) in &right {
            std::fs::remove_file(path)?;
            std::fs::write(path, [content.as_slice(), b"\n# changed\n"].concat())?;
        }
        for (process, _) in processes(system.data())? {
            ensure!(Command::new("kill").args(["-9", &process]).status()?.success(), "{process}");
        }
        until_down(&alice).await?;
        let found = planned(&alice, "info").await?;
        ensure!(found == down, "{found:?}");
        let done = if deploy { deployed(&alice).await? } else { updated(&alice, "info").await? };
        ensure!(done == ["development.workload"], "{done:?}");
        alice.page("shop", "development").await?;
        ensure!(copies(system.data())? == right, "the copies are not what was deployed");
        let found = planned(&alice, "info").await?;
        ensure!(found.is_empty(), "{found:?}");
    }
    system.stop().await
}

/// The database of provisioning is set back behind an update: what is recorded is asked for, and something else runs.
async fn set_back_behind_an_update(postgres: bool) -> Result<()> {
    let Some(mut site) = Site::new(postgres).await? else { return Ok(()) };
    let system = site.start().await?;
    let alice = site.person(&system, "alice")?;
    alice.create_project("shop").await?;
    system.stop().await?;
    let copy = site.databases.get("provisioning").context("a database")?.copy().await;
    let system = site.start().await?;
    let done = updated(&site.person(&system, "alice")?, "debug").await?;
    ensure!(done == ["development.workload"], "{done:?}");
    system.stop().await?;

    site.databases.insert("provisioning", copy);
    let (output, _) = site.restore(&[])?;
    ensure!(output.status.success(), "{output:?}");
    let system = site.start().await?;
    let alice = site.person(&system, "alice")?;
    let told = |level: &str| -> Result<bool> {
        let variable = format!("LOG_LEVEL={level}");
        let all = processes(site.data())?;
        Ok(!all.is_empty() && all.iter().all(|(_, told)| told.lines().any(|line| line == variable)))
    };
    let until = Instant::now() + LIMIT;
    while !told("debug")? {
        ensure!(Instant::now() < until, "it does not run: {:?}", processes(site.data())?);
        tokio::task::yield_now().await;
    }
    let found = planned(&alice, "info").await?;
    let wanted = [("development.workload".to_owned(), "differs from what is recorded".to_owned())];
    ensure!(found == wanted, "{found:?}");
    let done = updated(&alice, "info").await?;
    ensure!(done == ["development.workload"], "{done:?}");
    ensure!(told("info")?, "{:?}", processes(site.data())?);
    let done = updated(&alice, "info").await?;
    ensure!(done.is_empty(), "{done:?}");
    system.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_to_what_is_recorded_undoes_what_a_restore_forgot_on_sqlite() -> Result<()> {
    set_back_behind_an_update(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_to_what_is_recorded_undoes_what_a_restore_forgot_on_postgres() -> Result<()> {
    set_back_behind_an_update(true).await
}
