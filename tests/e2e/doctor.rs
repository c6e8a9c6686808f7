//! What an operator is told: about folders that others may enter, and by `pavior doctor`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use pavior_tests::{Processes, binary};
use serde_json::{Value, json};

const OPERATOR: &str = "operator";

/// A token of somebody.
fn token(system: &Processes, person: &str) -> Result<String> {
    let token = Command::new(binary()?)
        .args(["token", "--dev", "--as", person, "--data"])
        .arg(system.data())
        .output()
        .context("no token")?;
    Ok(String::from_utf8(token.stdout)?.trim().to_owned())
}

/// Removes what nobody declares, as a platform engineer does.
fn delete_orphan(system: &Processes, driver: &str, identity: &str) -> Result<()> {
    let output = Command::new(binary()?)
        .args(["resource", "delete-orphan", driver, identity])
        .env("PAVIOR_SERVER", format!("http://{}", system.address("gateway")?))
        .env("PAVIOR_ORGANIZATION", "acme")
        .env("PAVIOR_TOKEN", token(system, "pia")?)
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

/// Runs the doctor against the running system; its exit code and what it prints.
fn doctor(system: &Processes) -> Result<(Option<i32>, Value)> {
    let Output { status, stdout, stderr } = Command::new(binary()?)
        .args(["doctor", "--output", "json", "--set"])
        .arg(format!("data_dir={}", system.data().display()))
        .args(["--admin", &format!("http://{}", system.address("admin")?)])
        .args(["--server", &format!("http://{}", system.address("gateway")?)])
        .env("PAVIOR_TOKEN", token(system, OPERATOR)?)
        .output()?;
    let answer = serde_json::from_slice(&stdout)
        .with_context(|| format!("{status}: {}", String::from_utf8_lossy(&stderr)))?;
    Ok((status.code(), answer))
}

/// What the doctor found, of one area.
fn found(answer: &Value, area: &str) -> Vec<String> {
    let findings = answer["findings"].as_array().into_iter().flatten();
    let own = findings.filter(|finding| finding["area"] == area);
    own.map(|finding| format!("{} | {}", finding["what"], finding["advice"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_what_is_wrong_and_says_what_to_do() -> Result<()> {
    let system = Processes::whole().await?;
    for entry in walkdir::WalkDir::new(system.data()) {
        let entry = entry?;
        let mode = entry.metadata()?.permissions().mode() & 0o777;
        ensure!(entry.path_is_symlink() || mode & 0o077 == 0, "{}: {mode:o}", entry.path().display());
    }
    let (code, well) = doctor(&system)?;
    ensure!(code == Some(0) && well["healthy"] == true, "{well:#}");
    ensure!(well["findings"] == json!([]), "{well:#}");

    // As after a restore: a driver has what nobody declares any more.
    let identity = pavior_tests::orphan(system.data(), "organizations/acme/projects/old/pipelines/main")?;
    let open = system.data().join("keys/sealing");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644))?;
    let (code, ill) = doctor(&system)?;
    ensure!(code == Some(1) && ill["healthy"] == false, "{ill:#}");
    let orphans = found(&ill, "resources");
    ensure!(
        orphans.len() == 1 && orphans[0].contains(&identity) && orphans[0].contains("projects/old"),
        "{ill:#}"
    );
    let folders = found(&ill, "folders");
    ensure!(folders.len() == 1 && folders[0].contains(&format!("chmod 600 {}", open.display())), "{ill:#}");

    delete_orphan(&system, "pipeline", &identity)?;
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o600))?;
    let (code, mended) = doctor(&system)?;
    ensure!(code == Some(0) && mended["findings"] == json!([]), "{mended:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_others_may_enter_is_refused() -> Result<()> {
    let base = pavior_files::temporary_directory("pavior-e2e-")?;
    let data = base.path().join("data");
    std::fs::create_dir(&data)?;
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755))?;
    for command in [["serve", "--all"].as_slice(), &["migrate"]] {
        let said = refused(command, &data)?;
        ensure!(said.contains(&format!("chmod 700 {}", data.display())), "{command:?}: {said}");
    }
    ensure!(std::fs::read_dir(&data)?.next().is_none(), "something was made in it");
    Ok(())
}

/// What a command says that does not start.
fn refused(command: &[&str], data: &Path) -> Result<String> {
    let set = format!("data_dir={}", data.display());
    let Output { status, stderr, .. } =
        Command::new(binary()?).args(command).args(["--set", &set]).output()?;
    ensure!(status.code() == Some(1), "{command:?}: {status}");
    Ok(String::from_utf8(stderr)?)
}
