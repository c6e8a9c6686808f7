//! Restarts beside deletions: what was deleted stays deleted, what is declared runs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use pavior_driver::{
    ApplyRequest, DestroyRequest, Driver, Health, ListRequest, Lookup, MemorySink, NullSink, Observation,
};
use serde_json::{Value, json};

use crate::world::{World, config, context, invoke, reconcile, success, wait_for};

const WORKLOADS: usize = 24;
const DELETED: usize = 8;
const ROUNDS: usize = 10;

/// Listens and does nothing else: two dozen of them must start quickly.
const LISTENER: &str = "import os, _socket as s; l = s.socket(); l.bind(('127.0.0.1', int(os.environ['PORT']))); \
                        l.listen(9); open('alive', 'w').close(); __import__('time').sleep(600)";

/// The interpreter itself: wrappers around it take longer than it does.
fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" }
}

fn resource(name: &str) -> String {
    format!("organizations/acme/projects/p/environments/dev/resources/{name}")
}

async fn make(driver: &Arc<dyn Driver>, name: &str) -> String {
    let call = context(&resource(name), &format!("make/{name}"));
    let inputs = json!({"command": [python(), "-S", "-E", "-c", LISTENER], "variables": {"NAME": name}});
    let request = ApplyRequest {
        resource_type: "workload".to_owned(),
        prior: None,
        inputs,
        sensitive: Vec::new(),
        declaration_digest: String::new(),
    };
    success(driver.apply(&call, request, &MemorySink::new()).await).identity
}

async fn delete(driver: &Arc<dyn Driver>, name: &str, identity: &str) {
    let call = context(&resource(name), &format!("delete/{name}"));
    let lookup = Lookup::Identity(identity.to_owned());
    let request = DestroyRequest { resource_type: "workload".to_owned(), lookup, state: Value::Null };
    success(driver.destroy(&call, request, &NullSink).await);
}

/// Names of the workloads' processes that run under this data folder.
fn running(data: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let variable = |name: &str| {
            let mut words = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
            words.find_map(|word| word.strip_prefix(name).map(str::to_owned))
        };
        let ours = variable("HOME=").is_some_and(|home| Path::new(&home).starts_with(data));
        let command = String::from_utf8_lossy(&command);
        if ours && command.contains("_socket") && !command.contains("shim") {
            names.extend(variable("NAME="));
        }
    }
    names
}

/// Not a test of its own: the process that `what_was_deleted_stays_deleted` kills. Its plan comes from a file.
#[tokio::test]
async fn supervisor_beside_deletions() {
    let Ok(data) = std::env::var("PAVIOR_TEST_DELETIONS_DATA") else { return };
    let data = Path::new(&data);
    let plan: Value = serde_json::from_slice(&std::fs::read(data.with_extension("plan")).unwrap()).unwrap();
    let names = |part: &str| -> Vec<(String, String)> { serde_json::from_value(plan[part].clone()).unwrap() };
    let drivers = Arc::new(pavior_drivers::build(&config(data)).unwrap());
    let driver = drivers.registry.get("process").unwrap();
    // The engine takes up deletions while the drivers bring back what was there.
    let starter = Arc::clone(&drivers);
    let declared: Vec<String> = names("declared").into_iter().map(|(_, identity)| identity).collect();
    let resume = tokio::spawn(async move {
        let declared: Vec<&str> = declared.iter().map(String::as_str).collect();
        reconcile(&starter, &declared).await;
    });
    let deletions = names("deleted").into_iter().map(|(name, identity)| {
        let driver = driver.clone();
        async move { delete(&driver, &name, &identity).await }
    });
    futures::future::join_all(deletions).await;
    let mut made = Vec::new();
    for (name, _) in names("made") {
        made.push((name.clone(), make(&driver, &name).await));
    }
    resume.await.unwrap();
    std::fs::write(data.with_extension("tmp"), json!(made).to_string()).unwrap();
    std::fs::rename(data.with_extension("tmp"), data.with_extension("done")).unwrap();
    std::future::pending::<()>().await;
}

async fn round(data: &Path, plan: &Value) -> (tokio::process::Child, Vec<(String, String)>) {
    std::fs::write(data.with_extension("plan"), plan.to_string()).unwrap();
    let _ = std::fs::remove_file(data.with_extension("done"));
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "restart::supervisor_beside_deletions", "--nocapture"])
        .env("PAVIOR_TEST_DELETIONS_DATA", data)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let made = wait_for("the round", || std::fs::read(data.with_extension("done")).ok()).await;
    (child, serde_json::from_slice(&made).unwrap())
}

#[tokio::test]
async fn what_was_deleted_stays_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().canonicalize().unwrap().join("data");
    let mut declared: Vec<(String, String)> = Vec::new();
    let mut serial = 0;
    for number in 0..=ROUNDS {
        let deleted: Vec<_> = if number == 0 { Vec::new() } else { declared.drain(..DELETED).collect() };
        let made: Vec<(String, String)> = (declared.len()..WORKLOADS)
            .map(|_| {
                serial += 1;
                (format!("w{serial}"), String::new())
            })
            .collect();
        let plan = json!({ "declared": declared.iter().chain(&deleted).collect::<Vec<_>>(), "deleted": deleted, "made": made });
        let (mut child, made) = round(&data, &plan).await;
        declared.extend(made);
        let want: BTreeSet<String> = declared.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(want.len(), WORKLOADS);
        // One that came down once, as when its port was taken for a moment, is started again after a pause.
        wait_for("all that is declared", || running(&data).is_superset(&want).then_some(())).await;
        assert_eq!(running(&data), want, "round {number}");
        child.start_kill().unwrap();
        child.wait().await.unwrap();
    }
}

/// A world whose process ended in order, and the drivers of the next one over the same folder.
async fn next_process(world: World) -> (pavior_drivers::Drivers, std::path::PathBuf, tempfile::TempDir) {
    world.drivers.stop().await;
    let (data, directory) = world.end();
    (pavior_drivers::build(&config(&data)).unwrap(), data, directory)
}

#[tokio::test]
async fn what_nobody_declares_is_not_started() {
    let world = World::new().await;
    let driver = world.driver("process");
    let (kept, lost) = (make(&driver, "kept").await, make(&driver, "lost").await);
    drop(driver);
    let (drivers, data, _directory) = next_process(world).await;
    reconcile(&drivers, &[&kept]).await;
    assert_eq!(running(&data), BTreeSet::from(["kept".to_owned()]));
    // It is still there, for people to decide about.
    let driver = drivers.registry.get("process").unwrap();
    let listed = driver.list(ListRequest { page_size: 10, page_token: String::new() }).await.unwrap();
    let listed: Vec<_> =
        listed.resources.into_iter().map(|listed| (listed.identity, listed.resource, listed.key)).collect();
    let want = |identity: &str, name: &str| (identity.to_owned(), resource(name), format!("make/{name}"));
    assert_eq!(listed, [want(&kept, "kept"), want(&lost, "lost")]);
    drivers.stop().await;
}

#[tokio::test]
async fn what_is_yet_to_be_started_again_is_not_told_to_be_down() {
    let world = World::new().await;
    let driver = world.driver("process");
    let (kept, stopped) = (make(&driver, "kept").await, make(&driver, "stopped").await);
    let call = context(&resource("stopped"), "stop/1");
    success(driver.invoke(&call, invoke(&stopped, "stop", Value::Null, &[]), &NullSink).await);
    drop(driver);
    let (drivers, data, _directory) = next_process(world).await;
    let driver = drivers.registry.get("process").unwrap();
    let look = async |name: &str, identity: &str| {
        let request = pavior_driver::ObserveRequest {
            resource_type: "workload".to_owned(),
            lookup: Lookup::Identity(identity.to_owned()),
        };
        driver.observe(&context(&resource(name), "look/1"), request).await
    };
    let seen = look("kept", &kept).await;
    let Observation::Indeterminate { message } = seen else { panic!("{seen:?}") };
    assert_eq!(message, "the workload is about to be started again");
    let seen = look("stopped", &stopped).await;
    assert!(matches!(seen, Observation::Found(_)), "{seen:?}");
    // Who looks while it takes its turn waits for it.
    let declared = [kept.as_str(), &stopped];
    let (seen, ()) = tokio::join!(look("kept", &kept), reconcile(&drivers, &declared));
    assert!(matches!(seen, Observation::Found(_)), "{seen:?}");
    assert_eq!(running(&data), BTreeSet::from(["kept".to_owned()]));
    drivers.stop().await;
    drop((driver, drivers));

    // One that nobody declares is not waited for once that is known.
    let drivers = pavior_drivers::build(&config(&data)).unwrap();
    reconcile(&drivers, &[&stopped]).await;
    let driver = drivers.registry.get("process").unwrap();
    let request = pavior_driver::ObserveRequest {
        resource_type: "workload".to_owned(),
        lookup: Lookup::Identity(kept.clone()),
    };
    let seen = driver.observe(&context(&resource("kept"), "look/2"), request).await;
    let Observation::Partial { message, .. } = seen else { panic!("{seen:?}") };
    assert_eq!(message, "the process does not run");
    drop(driver);
    drivers.stop().await;
}

#[tokio::test]
async fn what_ends_after_its_leader_has_the_time_that_was_given() {
    let world = World::with(|config| config.process.grace = std::time::Duration::from_secs(20)).await;
    let driver = world.driver("process");
    let script = format!(
        "trap : TERM; (trap 'sleep 0.3; touch tidied; exit' TERM; touch ready; while :; do sleep 0.05; done) & \
         exec {} -S -E -c \"$LISTENER\"",
        python()
    );
    let inputs =
        json!({"command": ["/bin/sh", "-c", script], "variables": {"NAME": "slow", "LISTENER": LISTENER}});
    let request = ApplyRequest {
        resource_type: "workload".to_owned(),
        prior: None,
        inputs,
        sensitive: Vec::new(),
        declaration_digest: String::new(),
    };
    let call = context(&resource("slow"), "make/slow");
    success(driver.apply(&call, request, &MemorySink::new()).await);
    let home = |name: &str| {
        let folders = std::fs::read_dir(world.data.join("workloads")).unwrap();
        folders.flatten().any(|folder| folder.path().join("data").join(name).exists()).then_some(())
    };
    wait_for("the second process", || home("ready")).await;
    drop(driver);
    world.drivers.stop().await;
    assert!(home("tidied").is_some());
}

#[tokio::test]
async fn one_damaged_record_keeps_nobody_else_down() {
    let world = World::new().await;
    let driver = world.driver("process");
    let (whole, cut) = (make(&driver, "whole").await, make(&driver, "cut").await);
    drop(driver);
    world.drivers.stop().await;
    let (data, _directory) = world.end();
    let hash = pavior_core::digest::sha256_hex(cut.as_bytes());
    let record = data.join(format!("drivers/process/things/{hash}.json"));
    let bytes = std::fs::read(&record).unwrap();
    std::fs::write(&record, &bytes[..bytes.len() / 2]).unwrap();

    let drivers = pavior_drivers::build(&config(&data)).unwrap();
    reconcile(&drivers, &[&whole, &cut]).await;
    assert_eq!(running(&data), BTreeSet::from(["whole".to_owned()]));
    let driver = drivers.registry.get("process").unwrap();
    let Health::Degraded(what) = driver.health().await else { panic!("not told") };
    assert!(what.contains(&format!("things-{hash}.json")), "{what}");
    // What is left of it is named, made anew under its identity, and whole again.
    let call = context(&resource("cut"), "look/1");
    let request = pavior_driver::ObserveRequest {
        resource_type: "workload".to_owned(),
        lookup: Lookup::Identity(cut.clone()),
    };
    let seen = driver.observe(&call, request).await;
    assert!(matches!(&seen, Observation::Partial { identity: Some(found), .. } if *found == cut), "{seen:?}");
    delete(&driver, "cut", &cut).await;
    assert_eq!(driver.health().await, Health::Ok);
    drivers.stop().await;
}

#[tokio::test]
async fn what_does_not_come_up_is_tried_until_it_does() {
    let world = World::new().await;
    let driver = world.driver("process");
    let call = context(&resource("late"), "make/late");
    // The file stands for something that the workload needs and that is away when the platform starts.
    let needed = world.data.parent().unwrap().join("needed");
    std::fs::write(&needed, "").unwrap();
    let script = format!("open('{}').close(); {LISTENER}", needed.display());
    let inputs = json!({"command": [python(), "-S", "-E", "-c", script], "variables": {"NAME": "late"}});
    let request = ApplyRequest {
        resource_type: "workload".to_owned(),
        prior: None,
        inputs,
        sensitive: Vec::new(),
        declaration_digest: String::new(),
    };
    let identity = success(driver.apply(&call, request, &MemorySink::new()).await).identity;
    drop(driver);
    let (drivers, data, _directory) = next_process(world).await;
    std::fs::remove_file(&needed).unwrap();
    reconcile(&drivers, &[&identity]).await;
    let driver = drivers.registry.get("process").unwrap();
    let Health::Degraded(what) = driver.health().await else { panic!("not told") };
    assert!(what.contains(&identity) && what.contains("exit code 1"), "{what}");
    std::fs::write(&needed, "").unwrap();
    wait_for("the workload", || running(&data).contains("late").then_some(())).await;
    let mut health = driver.health().await;
    while health != Health::Ok {
        tokio::task::yield_now().await;
        health = driver.health().await;
    }
    drivers.stop().await;
}

#[tokio::test]
async fn those_that_hang_keep_nobody_else_down() {
    let world = World::new().await;
    let driver = world.driver("process");
    let needed = world.data.parent().unwrap().join("needed");
    std::fs::write(&needed, "").unwrap();
    // Without the file they run and never answer.
    let hang = format!(
        "import os\nif not os.path.exists('{}'): open('alive', 'w').close(); __import__('time').sleep(600)\n{LISTENER}",
        needed.display()
    );
    let mut identities = Vec::new();
    for (name, script) in
        (0..8).map(|number| (format!("a{number}"), hang.as_str())).chain([("z".to_owned(), LISTENER)])
    {
        let inputs = json!({"command": [python(), "-S", "-E", "-c", script], "variables": {"NAME": name},
                            "health": {"timeout": "10m"}});
        let request = ApplyRequest {
            resource_type: "workload".to_owned(),
            prior: None,
            inputs,
            sensitive: Vec::new(),
            declaration_digest: String::new(),
        };
        let call = context(&resource(&name), &format!("make/{name}"));
        identities.push(success(driver.apply(&call, request, &MemorySink::new()).await).identity);
    }
    drop(driver);
    let (drivers, data, _directory) = next_process(world).await;
    std::fs::remove_file(&needed).unwrap();
    let drivers = Arc::new(drivers);
    let told = Arc::clone(&drivers);
    let round = tokio::spawn(async move {
        let identities: Vec<&str> = identities.iter().map(String::as_str).collect();
        reconcile(&told, &identities).await;
    });
    wait_for("the one that does not hang", || running(&data).contains("z").then_some(())).await;
    assert_eq!(running(&data).len(), 9);
    assert!(!round.is_finished(), "those that hang are still waited for");
    round.abort();
    drivers.stop().await;
}
