//! The quickstart ends with commands to go on with: each of them works as it stands there.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use pavior_tests::binary;

/// Ends it with the test, well or not.
struct Quickstart(Child);

impl Drop for Quickstart {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The commands that it ends with; those that need a program that is not here are left out, and that is said.
fn hints(quickstart: &mut Quickstart) -> Result<Vec<String>> {
    let output = quickstart.0.stdout.take().context("no output")?;
    let (mut found, mut ending) = (Vec::new(), false);
    for line in BufReader::new(output).lines() {
        let line = line?;
        ending |= line.starts_with("Everything keeps running");
        if ending && line.starts_with("  ") {
            found.push(line.trim().to_owned());
        }
        if line.contains("ProjectService/ListProjects") {
            break;
        }
    }
    let joined = found.join("\n").replace("\\\n", " ");
    let grpcurl = Command::new("grpcurl").arg("-version").stderr(Stdio::null()).status().is_ok();
    if !grpcurl {
        eprintln!("skipped: the commands with grpcurl, which is not installed");
    }
    Ok(joined.lines().filter(|line| grpcurl || !line.starts_with("grpcurl")).map(str::to_owned).collect())
}

/// Waits until it serves; what it says afterwards is read on, so that it never waits for a reader.
fn ready(served: &mut Quickstart) -> Result<()> {
    let mut lines = BufReader::new(served.0.stderr.take().context("no errors")?).lines();
    for line in lines.by_ref() {
        if line?.contains("pavior is ready") {
            std::thread::spawn(move || lines.for_each(drop));
            return Ok(());
        }
    }
    anyhow::bail!("it ended before it was ready")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_the_quickstart_ends_with_works() -> Result<()> {
    let base = pavior_files::temporary_directory("pavior-e2e-")?;
    let data = base.path().join("data");
    let started = Command::new(binary()?)
        .args(["quickstart", "--language", "python", "--data"])
        .arg(&data)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut quickstart = Quickstart(started);
    let commands = tokio::task::block_in_place(|| hints(&mut quickstart))?;
    ensure!(commands.iter().any(|command| command.starts_with("pavior plan")), "{commands:?}");
    let folder = binary()?.parent().context("a folder")?.to_owned();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH")?);
    // One after the other in one shell, as a person would; the first that fails ends it.
    let script = format!("set -ex\n{}", commands.join("\n"));
    let output = Command::new("sh").args(["-c", &script]).env("PATH", &path).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // What it leaves behind is gone on with, on the same addresses.
    drop(quickstart);
    let served = Command::new(binary()?)
        .args(["serve", "--all", "--config"])
        .arg(data.join("pavior.toml"))
        .stderr(Stdio::piped())
        .spawn()?;
    let mut served = Quickstart(served);
    tokio::task::block_in_place(|| ready(&mut served))?;
    let exports = commands.iter().filter(|command| command.starts_with("export "));
    let exports: Vec<&str> = exports.map(String::as_str).collect();
    let script = format!("set -ex\n{}\npavior project show hello", exports.join("\n"));
    let output = Command::new("sh").args(["-c", &script]).env("PATH", &path).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
