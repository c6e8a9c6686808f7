//! The example driver in Python keeps the contract too.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use pavior_driver::conformance::{Case, Subject, run};
use pavior_driver::{
    ApplyRequest, Driver, FailureCode, Lookup, MemorySink, Observation, ObserveRequest, Outcome, SecretString,
};
use pavior_driver_grpc::{RemoteDriver, RemoteOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::{Seen, context};

const START: Duration = Duration::from_secs(60);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A Python that has grpcio and grpcio-tools.
async fn python() -> Option<PathBuf> {
    let candidates = [root().join("target/tools/python/bin/python"), PathBuf::from("python3")];
    for python in candidates {
        let check = Command::new(&python)
            .args(["-c", "import grpc, grpc_tools"])
            .stderr(Stdio::null())
            .status()
            .await;
        if check.is_ok_and(|status| status.success()) {
            return Some(python);
        }
    }
    let reason = "no Python with grpcio and grpcio-tools: run `tests/run`, which installs them";
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
    println!("SKIP: {reason}");
    None
}

/// The driver's process; it is killed when this is dropped.
struct Process {
    child: Child,
    endpoint: String,
}

impl Process {
    async fn start(python: &Path, folder: &Path) -> Self {
        let mut child = Command::new(python)
            .arg(root().join("tests/clients/python/example_driver.py"))
            .arg("--root")
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(START, lines.next_line()).await.unwrap().unwrap().unwrap();
        let address = line.strip_prefix("listening on ").unwrap();
        Self { endpoint: format!("http://{address}"), child }
    }

    async fn connect(&self) -> RemoteDriver {
        // The kit has to see what the driver lets through.
        let options = RemoteOptions { redact: false, ..RemoteOptions::default() };
        RemoteDriver::connect_endpoint(&self.endpoint, None, options).await.unwrap()
    }
}

fn apply_request(inputs: Value) -> ApplyRequest {
    ApplyRequest {
        resource_type: "text-file".to_owned(),
        prior: None,
        inputs,
        sensitive: Vec::new(),
        declaration_digest: String::new(),
    }
}

fn by_key(key: &str) -> ObserveRequest {
    ObserveRequest { resource_type: "text-file".to_owned(), lookup: Lookup::Key(key.to_owned()) }
}

#[tokio::test]
async fn the_python_driver_conforms() {
    let Some(python) = python().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(&python, folder.path()).await;
    let subject = Subject {
        driver: Arc::new(process.connect().await),
        resource_type: "text-file".to_owned(),
        organization: "acme".to_owned(),
        run: "kit".to_owned(),
        case: Box::new(|name| Case {
            resource: format!("organizations/acme/projects/p/resources/{name}"),
            inputs: json!({"path": format!("notes/{name}.txt"), "content": "hunter22-in"}),
            changed: Some(json!({"path": format!("notes/{name}.txt"), "content": "changed"})),
            failing: None,
            sensitive: vec![SecretString::from("hunter22-in")],
        }),
    };
    run(&subject).await.assert();
    let left: Vec<_> = std::fs::read_dir(folder.path().join("notes")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn the_python_driver_is_cancelled() {
    let Some(python) = python().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(&python, folder.path()).await;
    let driver = process.connect().await;
    let (sink, mut events) = Seen::new();
    let context = context("slow");
    let inputs = json!({"path": "slow.txt", "content": "x", "delay_ms": 600_000});
    let apply = driver.apply(&context, apply_request(inputs), &sink);
    let cancel = async {
        events.recv().await.unwrap();
        context.cancel.cancel();
    };
    let (outcome, ()) = timeout(START, async { tokio::join!(apply, cancel) }).await.unwrap();
    assert_eq!(outcome.failure().unwrap().code, FailureCode::Cancelled);
    let seen = driver.observe(&context, by_key(&context.idempotency_key)).await;
    assert!(matches!(seen, Observation::Absent), "{seen:?}");
}

#[tokio::test]
async fn a_python_driver_that_is_killed_leaves_an_unknown_outcome_which_resolves() {
    let Some(python) = python().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(&python, folder.path()).await;
    let driver = process.connect().await;
    let made = context("made");
    let request = || apply_request(json!({"path": "made.txt", "content": "x"}));
    let first = driver.apply(&made, request(), &MemorySink::new()).await.success().unwrap().clone();

    let (sink, mut events) = Seen::new();
    let broken = context("broken");
    let inputs = json!({"path": "broken.txt", "content": "x", "delay_ms": 600_000});
    let apply = driver.apply(&broken, apply_request(inputs), &sink);
    let kill = async {
        events.recv().await.unwrap();
        process.child.kill().await.unwrap();
    };
    let (outcome, ()) = timeout(START, async { tokio::join!(apply, kill) }).await.unwrap();
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");

    let again = Process::start(&python, folder.path()).await;
    let driver = again.connect().await;
    let seen = driver.observe(&broken, by_key(&broken.idempotency_key)).await;
    assert!(matches!(seen, Observation::Absent), "{seen:?}");
    let seen = driver.observe(&made, by_key(&made.idempotency_key)).await;
    assert!(matches!(&seen, Observation::Found(found) if found.identity == first.identity), "{seen:?}");
    let second = driver.apply(&made, request(), &MemorySink::new()).await;
    assert_eq!(second.success().unwrap().identity, first.identity);
}
