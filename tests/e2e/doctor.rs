//! What an operator is told: about folders that others may enter, and by `pavior doctor`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use pavior_tests::{Processes, binary};
use serde_json::{Value, json};

const OPERATOR: &str = "operator";

/// Runs the doctor against the running system; its exit code and what it prints.
fn doctor(system: &Processes) -> Result<(Option<i32>, Value)> {
    let token = Command::new(binary()?)
        .args(["token", "--dev", "--as", OPERATOR, "--data"])
        .arg(system.data())
        .output()
        .context("no token")?;
    let Output { status, stdout, stderr } = Command::new(binary()?)
        .args(["doctor", "--output", "json", "--set"])
        .arg(format!("data_dir={}", system.data().display()))
        .args(["--admin", &format!("http://{}", system.address("admin")?)])
        .args(["--server", &format!("http://{}", system.address("gateway")?)])
        .env("PAVIOR_TOKEN", String::from_utf8(token.stdout)?.trim())
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
    let identity = "forgotten-0123456789abcdef";
    let name = format!("{}.json", pavior_core::digest::sha256_hex(identity.as_bytes()));
    let record = json!({
        "identity": identity, "organization": "acme", "resource": "organizations/acme/projects/old/pipelines/main",
        "resource_type": "ci-pipeline", "created_by": "old/main/1", "keys": [], "ready": true, "data": {},
    });
    let things = system.data().join("platform/drivers/pipeline/things");
    std::fs::write(things.join(name), record.to_string())?;
    let open = system.data().join("keys/sealing");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644))?;
    let (code, ill) = doctor(&system)?;
    ensure!(code == Some(1) && ill["healthy"] == false, "{ill:#}");
    let orphans = found(&ill, "resources");
    ensure!(
        orphans.len() == 1 && orphans[0].contains(identity) && orphans[0].contains("projects/old"),
        "{ill:#}"
    );
    let folders = found(&ill, "folders");
    ensure!(folders.len() == 1 && folders[0].contains(&format!("chmod 600 {}", open.display())), "{ill:#}");
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
