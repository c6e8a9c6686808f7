//! `kill -9` in the middle of things: what was asked for comes about, once.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pavior::cli::progress;
use pavior::quickstart::mint;
use pavior::starter::ORGANIZATION;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_tests::{Person, Processes, binary};
use pb::watch_operation_response::Event;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// The step whose start is the moment of the kill.
async fn killed_during(step: &str, project: &str) -> Result<()> {
    let mut system = Processes::whole().await?;
    let alice = system.person("alice")?;
    let operation = alice.projects().create_project(alice.project(project)).await?.into_inner();
    wait_for_step(&alice, &operation.name, step).await?;
    system.kill("all")?;
    no_orphans(system.data())?;

    system.start("all", &["--all"], &[])?;
    let alice = system.person("alice")?;
    let operation = alice.finish(&operation).await?;
    progress::conclude(&operation).with_context(|| format!("{:?}", progress::metadata(&operation)))?;
    let page = alice.page(project, "development").await?;
    ensure!(page.contains("visits: 1"), "{page}");
    exactly_one_of_each(system.data(), project)?;
    system.stop("all")?;
    no_orphans(system.data())?;
    system.verify_audit_log().await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_during_the_pipeline() -> Result<()> {
    killed_during("run", "killed-run").await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_during_the_deployment() -> Result<()> {
    killed_during("workload", "killed-deploy").await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_during_the_database() -> Result<()> {
    killed_during("database", "killed-db").await
}

/// The command line goes on watching the server that comes back, from where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_outlives_a_killed_server() -> Result<()> {
    let mut system = Processes::whole().await?;
    let alice = system.person("alice")?;
    let address = system.address("gateway")?;
    let token = mint(system.data(), "alice", ORGANIZATION, &[], time::Duration::hours(1))?;
    let mut command = Command::new(binary()?)
        .args(["project", "create", "outlived", "--template", "web-service", "--owner", "storefront"])
        .args(["-p", "language=python"])
        .args(["--organization", ORGANIZATION, "--server", &format!("http://{address}")])
        .env("PAVIOR_TOKEN", token)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut said = BufReader::new(command.stderr.take().context("no standard error")?).lines();
    let first = said.next_line().await?.context("nothing is said")?;
    let operation = first.strip_prefix("operation ").with_context(|| first.clone())?;
    wait_for_step(&alice, operation, "run").await?;
    system.kill("all")?;
    system.start("all", &["--all"], &[("listen.gateway", address)])?;
    let mut rest = Vec::new();
    while let Some(line) = said.next_line().await? {
        rest.push(line);
    }
    let status = command.wait().await?;
    ensure!(status.success(), "{status}: {rest:#?}");
    ensure!(rest.iter().any(|line| line.contains("workload")), "{rest:#?}");
    Ok(())
}

/// Returns as soon as a step is being worked on (or was: a fast one may be over before the event arrives).
async fn wait_for_step(person: &Person, operation: &str, step: &str) -> Result<()> {
    let request = pb::WatchOperationRequest { name: operation.to_owned(), start: None };
    let mut stream = person.operation_service().watch_operation(request).await?.into_inner();
    while let Some(response) = stream.message().await? {
        if let Some(Event::Step(seen)) = response.event {
            let begun = seen.state() != pb::operation_step::State::Pending;
            if seen.step_id.contains(step) && begun {
                return Ok(());
            }
        }
    }
    anyhow::bail!("the operation ended without `{step}`")
}

fn files(path: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        if wanted(&path) {
            found.push(path);
        } else if path.is_dir() {
            found.extend(files(&path, wanted));
        }
    }
    found
}

fn exactly_one_of_each(data: &Path, project: &str) -> Result<()> {
    let platform = pavior::serve::drivers_directory(data);
    let name = format!("{project}.git");
    let repositories = files(&platform.join("repositories"), &|p| p.file_name().is_some_and(|n| *n == *name));
    ensure!(repositories.len() == 1, "{repositories:?}");
    let databases =
        files(&platform.join("databases"), &|p| p.extension().is_some_and(|e| e == "db" || e == "sqlite"));
    ensure!(databases.len() == 1, "{databases:?}");
    let processes = workloads(data)?;
    ensure!(processes.len() == 1, "{processes:?}");
    Ok(())
}

/// The workloads that run out of a data folder, by their command lines.
fn workloads(data: &Path) -> Result<Vec<String>> {
    let marker = data.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let Ok(bytes) = std::fs::read(path.join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&bytes).replace('\0', " ");
        // The shim names the workload too.
        if command.contains(&marker) && command.contains("app.py") && !command.contains("__shim") {
            found.push(command);
        }
    }
    Ok(found)
}

fn no_orphans(data: &Path) -> Result<()> {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let left = workloads(data)?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "orphans: {left:?}");
        std::thread::yield_now();
    }
}
