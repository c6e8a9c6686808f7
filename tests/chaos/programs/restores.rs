//! A database set back to an older copy.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pavior::cli::client::request_id;
use pavior_proto::pavior::audit::v1::ListAuditRecordsRequest;
use pavior_proto::pavior::policy::v1::{CreateRoleRequest, Role};
use pavior_tests::{Person, binary};

use super::{Load, Plan, recovered, until};
use crate::environments::make_project;
use crate::ledger::{DELIVERY, Ledger};
use crate::world::{ALL, Backing, World};

/// How long until it must be noticed that a database was set back.
const NOTICED: Duration = Duration::from_secs(30);
const ROLES: [&str; 4] = ["catalog", "policy", "provisioning", "audit"];

/// A service whose database was set back is noticed and named; after `pavior restore` the platform goes on, and every
/// later change has its record.
pub(super) async fn restore(plan: Plan) -> Result<String> {
    for role in ROLES {
        set_back(plan, role).await.with_context(|| format!("{role}'s database was set back"))?;
    }
    Ok(format!("{} databases set back, each noticed, named and gone on with", ROLES.len()))
}

async fn set_back(plan: Plan, role: &str) -> Result<()> {
    let mut world = World::start(Backing::Sqlite).await?;
    let log = tempfile::NamedTempFile::new()?;
    let before = Ledger::default();
    write(&world, &before, "before", plan).await?;
    world.processes.stop(ALL)?;
    let file = pavior::serve::database_file(world.processes.data(), role);
    let copy = tempfile::NamedTempFile::new()?;
    std::fs::copy(&file, copy.path())?;

    world.up()?;
    write(&world, &Ledger::default(), "lost", plan).await?;
    touch(&world, role).await?;
    world.processes.stop(ALL)?;
    std::fs::copy(copy.path(), &file)?;

    world.processes.log_to(log.path().to_owned());
    let noticed = world.up();
    // While the audit service does not answer yet, a service begins, and compares its history as soon as it does.
    until(NOTICED, || async {
        let said = std::fs::read_to_string(log.path())?;
        let known = noticed.is_err() || said.contains("pavior restore");
        Ok((!known).then(|| format!("nobody notices: {noticed:?}")))
    })
    .await?;
    let said = std::fs::read_to_string(log.path())?;
    ensure!(said.contains(role) && said.contains("pavior restore"), "it is not named: {said}");
    if noticed.is_ok() {
        world.processes.stop(ALL)?;
    }
    restored(&world, world.processes.data())?;

    world.up()?;
    recovered(&world).await?;
    let after = Ledger::default();
    write(&world, &after, "after", plan).await?;
    after.check(&world.person("pia")?).await?;
    world.end().await
}

async fn write(world: &World, ledger: &Ledger, prefix: &str, plan: Plan) -> Result<()> {
    let mut load = Load::new();
    load.writers(ledger, &world.person("pia")?, prefix, 2);
    tokio::time::sleep(plan.round / 4).await;
    load.end().await?;
    // The events have arrived before the database is copied.
    ledger.check(&world.person("pia")?).await?;
    Ok(())
}

/// Changes something of a service that the writers do not touch.
async fn touch(world: &World, role: &str) -> Result<()> {
    match role {
        "policy" => {
            let role = Role { actions: vec!["identity.groups.get".to_owned()], ..Role::default() };
            let request = CreateRoleRequest {
                parent: "organizations/acme".to_owned(),
                role_id: "lost".to_owned(),
                role: Some(role),
                request_id: request_id(),
                ..CreateRoleRequest::default()
            };
            world.person("pia")?.access().create_role(request).await?;
            recorded(&world.person("pia")?, "organizations/acme/roles/lost").await
        }
        "provisioning" => {
            make_project(&world.person("alice")?, "lost").await?;
            recorded(&world.person("pia")?, "organizations/acme/projects/lost").await
        }
        // Written by the writers and by every change.
        _ => Ok(()),
    }
}

/// Waits until the audit log has a record of it: what is lost before that, nobody can notice.
async fn recorded(person: &Person, name: &str) -> Result<()> {
    let deadline = Instant::now() + DELIVERY;
    loop {
        let request = ListAuditRecordsRequest {
            parent: "organizations/acme".to_owned(),
            filter: format!("event.target.name = \"{name}\""),
            ..Default::default()
        };
        if !person.audit().list_audit_records(request).await?.into_inner().audit_records.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "`{name}` is not recorded");
        tokio::task::yield_now().await;
    }
}

/// `pavior restore`, twice: the second one has nothing to do.
fn restored(world: &World, data: &Path) -> Result<()> {
    for _ in 0..2 {
        let mut command = Command::new(binary()?);
        command
            .args(["restore", "--accept-lost-records", "--reason", "a copy was put back"])
            .arg("--set")
            .arg(format!("data_dir={}", data.display()));
        for (key, value) in world.settings() {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pavior restore: {said}");
    }
    Ok(())
}
