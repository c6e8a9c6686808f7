//! `pavior doctor`: what is wrong with a platform, from its folders, its services and its drivers, and what to do.

mod operations;
mod restore;

use std::path::{Path, PathBuf};
use std::time::Duration;

use pavior_drivers::DriversKey;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_runtime::Cause;
use serde::{Deserialize as _, Serialize};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::args::{ConnectionArgs, DoctorArgs};
use super::client::Client;
use super::exit::Exit;
use super::failure::{self, Ended};
use super::output::{self, Printer};
use super::settings;
use crate::serve::{Config, database_file, drivers_directory, load_config};

/// How long a process may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// All organizations, and what belongs to none.
const ALL: &str = "organizations/-";
/// Differences between drivers and records: of one answer, and of all that are looked at.
const PAGE: i32 = 1_000;
const MAX_FINDINGS: usize = 5_000;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// Something does not work, or is not safe.
    Problem,
    /// The platform works; something beside does not, or not as well as it should.
    Degraded,
    /// It could not be looked at.
    Unchecked,
}

/// One thing that is wrong, or that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    area: &'static str,
    what: String,
    advice: String,
}

/// All that was found, and the answers that it comes from.
#[derive(Debug, Default)]
struct Report {
    findings: Vec<Finding>,
    processes: Vec<Value>,
    resources: Value,
    /// Conditions that are met again only when an operator has restored.
    refusing: Vec<String>,
    /// A process did not answer.
    silent: bool,
}

impl Report {
    fn problem(&mut self, area: &'static str, what: impl Into<String>, advice: impl Into<String>) {
        self.find(Level::Problem, area, what, advice);
    }

    fn unchecked(&mut self, area: &'static str, what: impl Into<String>, advice: impl Into<String>) {
        self.find(Level::Unchecked, area, what, advice);
    }

    fn find(&mut self, level: Level, area: &'static str, what: impl Into<String>, advice: impl Into<String>) {
        let (what, advice) = (what.into(), advice.into());
        self.findings.push(Finding { level, area, what, advice });
    }
}

/// Looks, prints, and fails when something is wrong.
pub(crate) async fn run(
    printer: Printer,
    connection: &ConnectionArgs,
    args: &DoctorArgs,
) -> anyhow::Result<()> {
    let config = load_config(&args.config)?;
    let mut report = Report::default();
    folders(&mut report, &config);
    keys(&mut report, &config);
    let admin = match args.admin.as_slice() {
        [] => vec![format!("http://{}", config.listen.admin)],
        given => given.to_vec(),
    };
    for address in &admin {
        process(&mut report, address).await;
    }
    if restore::is_waited_for(&mut report, &config, &args.config).await {
        let advice =
            "run this again after the restore: what an older copy says of them is not what was last done";
        report.unchecked("resources", "drivers and records are not compared before a restore", advice);
    } else {
        resources(&mut report, connection).await;
        operations::stuck(&mut report, connection).await;
    }
    print(printer, report)
}

fn print(printer: Printer, report: Report) -> anyhow::Result<()> {
    let Report { mut findings, processes, resources, .. } = report;
    findings.sort_by_key(|finding| finding.level);
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (problems, degraded) = (count(Level::Problem), count(Level::Degraded));
    let unchecked = count(Level::Unchecked);
    if printer.is_json() {
        // A platform that could not be checked in full is not reported as healthy.
        let healthy = findings.is_empty();
        printer.value(&json!({
            "healthy": healthy, "findings": findings, "processes": processes, "resources": resources,
        }))?;
    } else if findings.is_empty() {
        output::say("nothing is wrong")?;
    } else {
        for Finding { level, area, what, advice } in &findings {
            let level = match level {
                Level::Problem => "problem",
                Level::Degraded => "degraded",
                Level::Unchecked => "unchecked",
            };
            output::say(&format!("{level}: {area}: {what}\n  to do: {advice}"))?;
        }
    }
    if problems + degraded + unchecked == 0 {
        return Ok(());
    }
    let message = format!("{problems} problem(s), {degraded} degraded, {unchecked} unchecked");
    Err(Ended { message, exit: Exit::Failed }.into())
}

/// The reason why a service could not be asked, and advice.
fn unasked(error: &anyhow::Error) -> (String, String) {
    let status = error.chain().find_map(|cause| cause.downcast_ref::<Status>());
    let why = match status {
        Some(status) if failure::is_local(status) => "the server cannot be reached".to_owned(),
        Some(status) => status.message().to_owned(),
        None => format!("{error:#}"),
    };
    let advice = match (status, failure::exit_of(error)) {
        (_, Exit::Unavailable) => {
            "start the platform, or wait until what is missing is back (or give --server), and run this again"
        }
        (None, _) | (_, Exit::Denied) => {
            "log in as an operator, or give --server and --token-file (PAVIOR_TOKEN)"
        }
        _ => "see the log of the gateway, and run this again",
    };
    (why, advice.to_owned())
}

/// Nobody but the owner may use what the platform keeps on this machine.
fn folders(report: &mut Report, config: &Config) {
    let data = &config.data_dir;
    if !data.is_dir() {
        let what = format!("the data folder `{}` is not on this machine", data.display());
        return report.unchecked("folders", what, "run this where the platform runs, with its configuration");
    }
    let mut paths: Vec<PathBuf> = vec![data.clone(), drivers_directory(data)];
    for role in crate::serve::Role::ALL {
        paths.push(database_file(data, role.name()));
        paths.extend(
            config.internal.private_key_dir.iter().map(|keys| keys.join(format!("{}.pem", role.name()))),
        );
    }
    paths.extend(config.keys.sealing_file.clone());
    paths.extend(config.keys.page_token_file.clone());
    paths.extend(config.audit.signing_key_file.clone());
    for path in paths {
        match pavior_files::too_open(&path) {
            Ok(None) => {}
            Ok(Some(open)) => {
                let what = format!(
                    "`{}` may be used by others than its owner (mode {:04o})",
                    path.display(),
                    open.mode
                );
                let advice = format!(
                    "`chmod {} {}`, and change what stood in it if others have an account here",
                    open.wanted,
                    path.display()
                );
                report.problem("folders", what, advice);
            }
            Err(error) => {
                let what = format!("`{}` cannot be looked at: {}", path.display(), error.kind());
                report.unchecked("folders", what, "run this as the user that the platform runs as");
            }
        }
    }
}

/// The sealing key is there, and is the one that the drivers' folder was made with.
fn keys(report: &mut Report, config: &Config) {
    let Some(file) = config.keys.sealing_file.as_deref() else { return };
    let folder = drivers_directory(&config.data_dir);
    let used = folder.is_dir() || database_file(&config.data_dir, "provisioning").is_file();
    match sealing_key(file) {
        Ok(Some(key)) => match pavior_drivers::key_fits(&folder, &DriversKey::derive(&key)) {
            Ok(Some(false)) => {
                let what =
                    format!("`{}` was made with another key than `{}`", folder.display(), file.display());
                report.problem(
                    "keys",
                    what,
                    "restore the key file that belongs to the folder and the database",
                );
            }
            Ok(_) => {}
            Err(error) => {
                let what = format!("`{}` cannot be read: {}", folder.display(), error.kind());
                report.unchecked("keys", what, "run this as the user that the platform runs as");
            }
        },
        Ok(None) if used => {
            let what = format!("the sealing key `{}` is missing", file.display());
            report.problem(
                "keys",
                what,
                "restore it: without it sealed secrets and workloads cannot be opened",
            );
        }
        Ok(None) => {}
        Err(error) => {
            let what = format!("the sealing key `{}` cannot be used: {error}", file.display());
            report.problem("keys", what, "restore the file: 32 bytes in hexadecimal");
        }
    }
}

fn sealing_key(file: &Path) -> std::io::Result<Option<[u8; 32]>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0_u8; 32];
    hex::decode_to_slice(text.trim(), &mut bytes)
        .map_err(|_| std::io::Error::other("it does not hold 32 bytes in hexadecimal"))?;
    Ok(Some(bytes))
}

/// What a process says of itself: its services, databases, outboxes and peers.
async fn process(report: &mut Report, address: &str) {
    let address = address.trim_end_matches('/');
    match readiness(address).await {
        Ok(answer) => {
            let advice = format!("see the log of the process at {address}, and its `/metrics`");
            for (level, cause, what) in conditions(&answer) {
                match cause {
                    Cause::RestoreNeeded => report.refusing.push(what),
                    _ => report.find(level, "services", what, advice.as_str()),
                }
            }
            report.processes.push(json!({ "admin": address, "readiness": answer }));
        }
        Err(why) => {
            let what = format!("nothing answers at `{address}/readyz`: {why}");
            let advice = "start the platform (its last words say what keeps it from that), or give its admin listener with \
                          --admin";
            report.problem("services", what, advice);
            report.silent = true;
            report.processes.push(json!({ "admin": address, "readiness": null }));
        }
    }
}

async fn readiness(address: &str) -> Result<Value, String> {
    let why = |error: reqwest::Error| {
        if error.is_timeout() {
            "it takes too long".to_owned()
        } else {
            "no connection, or no such answer".to_owned()
        }
    };
    let client = reqwest::Client::builder().timeout(PATIENCE).build().map_err(why)?;
    let request = client.get(format!("{address}/readyz")).header("accept", "application/json");
    request.send().await.map_err(why)?.json().await.map_err(why)
}

/// The conditions that are not met, and what each means.
fn conditions(answer: &Value) -> Vec<(Level, Cause, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut found = Vec::new();
    for condition in answer["conditions"].as_array().into_iter().flatten() {
        let Some(reason) = condition["reason"].as_str() else { continue };
        let (role, name) = (text(&condition["role"]), text(&condition["name"]));
        // An unknown severity counts as a problem.
        let level = if condition["severity"] == "degrades" { Level::Degraded } else { Level::Problem };
        let meaning = if level == Level::Degraded { "degraded" } else { "not ready" };
        // One that only a newer server knows is explained by its reason.
        let cause = Cause::deserialize(&condition["cause"]).unwrap_or_default();
        found.push((level, cause, format!("{role} is {meaning}: {name}: {reason}")));
    }
    if answer["ready"] != true && !found.iter().any(|(level, ..)| *level == Level::Problem) {
        let what = "the process is not ready: it is starting, or going down".to_owned();
        found.push((Level::Problem, Cause::Other, what));
    }
    found
}

/// Differences between the drivers and the records of provisioning.
async fn resources(report: &mut Report, args: &ConnectionArgs) {
    let answer = match diagnose(args).await {
        Ok(answer) => answer,
        Err(error) => {
            let (why, advice) = unasked(&error);
            return report.unchecked(
                "resources",
                format!("drivers and records are not compared: {why}"),
                advice,
            );
        }
    };
    for finding in &answer.findings {
        use pb::resource_finding::Kind;
        let pb::ResourceFinding { driver_id: driver, external_id: identity, resource, advice, .. } = finding;
        let what = match finding.kind() {
            Kind::Missing => {
                format!("`{resource}` is gone: driver `{driver}` does not have `{identity}`")
            }
            Kind::Driverless => format!("`{resource}` was made by driver `{driver}`, which is not there"),
            Kind::Drifted => format!(
                "`{resource}` differs from what is recorded: driver `{driver}` was last told something else of `{identity}`"
            ),
            Kind::Orphaned => {
                format!("driver `{driver}` has `{identity}` of `{resource}`, and nobody declares it")
            }
            Kind::Overdue => format!("`{resource}` still stands although its time is over"),
            // A kind that only a newer server knows is explained by its advice.
            _ => format!("`{resource}` is not as it should be"),
        };
        report.problem("resources", what, advice);
    }
    if !answer.next_page_token.is_empty() {
        report.problem("resources", "there are more of them", "look to these first, then run this again");
    }
    for condition in &answer.drivers {
        use pb::driver_condition::State;
        let pb::DriverCondition { driver_id: driver, message, .. } = condition;
        if condition.state() != State::Ok {
            report.problem(
                "drivers",
                format!("`{driver}`: {message}"),
                "follow the message, and see the log of provisioning",
            );
        }
    }
    report.resources = pavior_rpc::convert::to_json(&answer).unwrap_or_default();
}

/// For the whole platform when the caller may, else for their own organization. Differences beyond [`MAX_FINDINGS`] are
/// left to the token in the answer.
async fn diagnose(args: &ConnectionArgs) -> anyhow::Result<pb::DiagnoseResourcesResponse> {
    let client = Client::new(&settings::connection(args)?)?;
    let ask = async |parent: &str, page_token: String| {
        let request = pb::DiagnoseResourcesRequest { parent: parent.to_owned(), page_size: PAGE, page_token };
        client.projects().diagnose_resources(request).await
    };
    let organization;
    let (mut answer, parent) = match ask(ALL, String::new()).await {
        Ok(answer) => (answer.into_inner(), ALL),
        Err(status) if status.code() == Code::PermissionDenied => {
            organization = client.organization()?;
            (ask(&organization, String::new()).await?.into_inner(), organization.as_str())
        }
        Err(status) => return Err(status.into()),
    };
    while !answer.next_page_token.is_empty() && answer.findings.len() < MAX_FINDINGS {
        let next = ask(parent, std::mem::take(&mut answer.next_page_token)).await?.into_inner();
        answer.findings.extend(next.findings);
        answer.next_page_token = next.next_page_token;
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_ready_and_degraded_are_told_apart_with_their_reasons() {
        let condition = |name: &str, severity: &str, reason: Value| json!({ "role": "provisioning", "name": name, "severity": severity, "reason": reason });
        let well = condition("provisioning database", "blocks", Value::Null);
        let slow = condition("driver `git`", "degrades", json!("it is away"));
        let outbox = condition("provisioning outbox", "blocks", json!("audit events wait since 40 s"));
        let answer = |ready: bool, all: &[&Value]| {
            conditions(&json!({ "ready": ready, "degraded": false, "conditions": all }))
        };
        assert_eq!(answer(true, &[&well]), []);
        let degraded =
            (Level::Degraded, Cause::Other, "provisioning is degraded: driver `git`: it is away".to_owned());
        assert_eq!(answer(true, &[&well, &slow]), std::slice::from_ref(&degraded));
        let blocked = "provisioning is not ready: provisioning outbox: audit events wait since 40 s";
        assert_eq!(
            answer(false, &[&well, &slow, &outbox]),
            [degraded, (Level::Problem, Cause::Other, blocked.to_owned()),]
        );
        let mut older = condition("provisioning outbox", "blocks", json!("it is an older copy"));
        older["cause"] = json!("restore_needed");
        assert_eq!(answer(false, &[&older])[0].1, Cause::RestoreNeeded);
        // Going down, with every condition met; and an answer that is none.
        assert_eq!(answer(false, &[&well])[0].0, Level::Problem);
        assert_eq!(conditions(&json!("ok"))[0].0, Level::Problem);
    }

    #[test]
    fn what_could_not_be_asked_is_said_in_words_with_advice_that_fits() {
        let said = |status: Status| unasked(&status.into());
        let (why, advice) = said(Status::unavailable("provisioning does not answer"));
        assert_eq!(why, "provisioning does not answer");
        assert!(advice.contains("wait") && !advice.contains("log in"), "{advice}");
        let (why, advice) = said(Status::permission_denied("you may not"));
        assert_eq!(why, "you may not");
        assert!(advice.contains("log in"), "{advice}");
        let (_, advice) = said(Status::internal("internal error, reference `x`"));
        assert!(!advice.contains("log in"), "{advice}");
        let (why, advice) = unasked(&anyhow::anyhow!("no server is known"));
        assert_eq!(why, "no server is known");
        assert!(advice.contains("log in"), "{advice}");
    }

    #[test]
    fn folders_and_keys_that_are_wrong_are_named_with_what_to_do() {
        use std::os::unix::fs::PermissionsExt as _;
        let base = tempfile::tempdir().unwrap();
        let data = base.path().join("data");
        pavior_files::private_directory(&data.join("keys")).unwrap();
        pavior_files::private_directory(&drivers_directory(&data).join("drivers")).unwrap();
        let config = Config::embedded(&data, Path::new("pavior")).unwrap();
        let sealing = data.join("keys/sealing");
        let look = || {
            let mut report = Report::default();
            folders(&mut report, &config);
            keys(&mut report, &config);
            report.findings
        };
        let found = look();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].what.contains("sealing") && found[0].what.contains("missing"), "{found:?}");

        std::fs::write(&sealing, hex::encode([1; 32])).unwrap();
        std::fs::set_permissions(&sealing, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(drivers_directory(&data).join("drivers/key-check"), "another").unwrap();
        let found = look();
        let all: Vec<String> =
            found.iter().map(|f| format!("{:?} {} {} {}", f.level, f.area, f.what, f.advice)).collect();
        let all = all.join("\n");
        assert_eq!(found.len(), 3, "{all}");
        for part in [
            format!("chmod 700 {}", data.display()),
            format!("chmod 600 {}", sealing.display()),
            "was made with another key".to_owned(),
        ] {
            assert!(all.contains(&part), "{part}\n{all}");
        }
    }
}
