use std::path::{Path, PathBuf};
use std::process::Stdio;

use pavior_driver::{FailureCode, Health, Lookup, MemorySink, Observation, Success};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::{World, alive, config, context, get, invoke, reconcile, success, wait_for};

/// A service that answers with `text`, counts its own starts, and has a child that would outlive it.
const SERVICE: &str = r#"
import os, sys, subprocess, http.server as h
open('starts', 'a').write('x')
if os.environ.get('FAIL'):
    print('cannot start with ' + os.environ['FAIL'], flush=True)
    sys.exit(3)
child = subprocess.Popen(['setsid', 'sleep', '600'])
class H(h.BaseHTTPRequestHandler):
    def do_GET(s):
        if s.path == '/crash': os._exit(9)
        s.send_response(200); s.end_headers()
        s.wfile.write((os.environ['TEXT'] + ' ' + str(child.pid)).encode())
    def log_message(s, *a): pass
print('listening with ' + os.environ.get('TOKEN', ''), flush=True)
h.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()
"#;

fn artifact(data: &Path, organization: &str) -> PathBuf {
    let digest = pavior_core::digest::sha256_hex(SERVICE.as_bytes());
    let folder = data.join("artifacts").join(organization).join("pipeline-1/sha256").join(digest);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("app.py");
    std::fs::write(&path, SERVICE).unwrap();
    path
}

fn inputs(artifact: &Path, text: &str) -> Value {
    json!({"command": ["python3", artifact], "variables": {"TEXT": text, "TOKEN": "hunter2222"},
           "health": {"path": "/", "timeout": "20s"}})
}

const RESOURCE: &str = "organizations/acme/projects/p/environments/dev/resources/web";

async fn start(world: &World, text: &str) -> Success {
    let call = context(RESOURCE, "op/web/1");
    let inputs = inputs(&artifact(&world.data, "acme"), text);
    success(world.apply_over("process", "workload", &call, inputs, None, &["hunter2222"]).await)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

async fn child_of(port: u64) -> u64 {
    get(port, "/").await.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_workload_runs_updates_and_goes() {
    let world = World::new().await;
    let made = start(&world, "one").await;
    let port = number(&made.outputs["port"]);
    assert!(get(port, "/").await.unwrap().starts_with("one "));
    assert_eq!(made.outputs["digest"], pavior_core::digest::sha256_digest(SERVICE.as_bytes()));
    let (pid, child) = (number(&made.outputs["pid"]), child_of(port).await);

    let update = context(RESOURCE, "op/web/2");
    let next = inputs(&artifact(&world.data, "acme"), "two");
    let updated =
        success(world.apply_over("process", "workload", &update, next, Some(&made), &["hunter2222"]).await);
    assert_eq!(updated.identity, made.identity);
    let port = number(&updated.outputs["port"]);
    assert!(get(port, "/").await.unwrap().starts_with("two "));
    assert!(!alive(pid) && !alive(child), "the old process or its child is alive");

    // A version that does not start leaves the old one in place.
    let broken = context(RESOURCE, "op/web/3");
    let mut next = inputs(&artifact(&world.data, "acme"), "three");
    next["variables"]["FAIL"] = json!("hunter2222");
    let outcome =
        world.apply_over("process", "workload", &broken, next, Some(&updated), &["hunter2222"]).await;
    let failure = outcome.failure().unwrap();
    assert_eq!(failure.code, FailureCode::WorkFailed);
    assert!(
        failure.message.contains("exit code 3") && failure.message.contains("cannot start with ***"),
        "{failure}"
    );
    assert!(get(port, "/").await.unwrap().starts_with("two "));

    let logs = invoke(&made.identity, "logs", json!({}), &[]);
    let call = context(RESOURCE, "op/logs/1");
    let text = success(world.driver("process").invoke(&call, logs, &MemorySink::new()).await).outputs["log"]
        .to_string();
    assert!(text.contains("listening with ***") && !text.contains("hunter2222"), "{text}");
    for file in walkdir::WalkDir::new(world.data.join("drivers"))
        .into_iter()
        .flatten()
        .filter(|f| f.file_type().is_file())
    {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter2222"), "{}", file.path().display());
    }

    let (pid, child) = (number(&updated.outputs["pid"]), child_of(port).await);
    let call = context(RESOURCE, "op/web/4");
    success(world.destroy("process", "workload", &call, &made.identity).await);
    assert!(!alive(pid) && !alive(child));
    assert!(get(port, "/").await.is_none());
}

/// Its start waits, or fails, by what stands in the folder of the test.
const PICKY: &str = "import os, sys, time, _socket as s\nd = os.environ['NOTES']\n\
                     while os.path.exists(d + '/wait'): open(d + '/waits', 'w').close(); time.sleep(0.01)\n\
                     if os.path.exists(d + '/fail'): sys.exit(3)\n\
                     l = s.socket(); l.setsockopt(s.SOL_SOCKET, s.SO_REUSEADDR, 1)\n\
                     l.bind(('127.0.0.1', int(os.environ['PORT']))); l.listen(9); time.sleep(600)";

async fn picky(world: &World, notes: &Path) -> Success {
    std::fs::create_dir(notes).unwrap();
    let inputs = json!({"command": ["python3", "-S", "-c", PICKY], "variables": {"NOTES": notes}});
    success(world.apply("process", "workload", &context(RESOURCE, "op/web/1"), inputs).await)
}

/// The engine drops a call whose claim it lost.
#[tokio::test]
async fn a_start_that_is_dropped_gives_its_port_back() {
    let world = World::new().await;
    let notes = world.data.parent().unwrap().join("notes");
    let made = picky(&world, &notes).await;
    std::fs::write(notes.join("wait"), "").unwrap();
    let driver = world.driver("process");
    let (call, sink) = (context(RESOURCE, "op/restart/1"), MemorySink::new());
    let restart = driver.invoke(&call, invoke(&made.identity, "restart", json!({}), &[]), &sink);
    let waits = wait_for("the start", || notes.join("waits").exists().then_some(()));
    tokio::select! {
        outcome = restart => panic!("it ended: {outcome:?}"),
        () = waits => {}
    }
    std::fs::remove_file(notes.join("wait")).unwrap();
    let folder = world.data.join("workloads");
    wait_for("the process to end", || {
        let mut files = walkdir::WalkDir::new(&folder).into_iter().flatten();
        (!files.any(|file| file.file_name().to_string_lossy().starts_with("status-"))).then_some(())
    })
    .await;
    let call = context(RESOURCE, "op/restart/2");
    let again = driver.invoke(&call, invoke(&made.identity, "restart", json!({}), &[]), &sink);
    assert_eq!(success(again.await).outputs["port"], made.outputs["port"]);
    world.drivers.stop().await;
}

#[tokio::test]
async fn a_restart_that_fails_is_tried_again_without_anybody_asking() {
    let world = World::new().await;
    let notes = world.data.parent().unwrap().join("notes");
    let made = picky(&world, &notes).await;
    std::fs::write(notes.join("fail"), "").unwrap();
    let call = context(RESOURCE, "op/restart/1");
    let driver = world.driver("process");
    let outcome =
        driver.invoke(&call, invoke(&made.identity, "restart", json!({}), &[]), &MemorySink::new()).await;
    let failure = outcome.failure().unwrap();
    assert_eq!(failure.code, FailureCode::WorkFailed);
    assert!(failure.message.ends_with("it is tried again until it comes up or is stopped"), "{failure}");
    std::fs::remove_file(notes.join("fail")).unwrap();
    let port = u16::try_from(number(&made.outputs["port"])).unwrap();
    wait_for("the workload", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(()))
        .await;
    world.drivers.stop().await;
}

#[tokio::test]
async fn a_crash_is_followed_by_a_restart() {
    let world = World::new().await;
    let made = start(&world, "one").await;
    let (port, pid) = (number(&made.outputs["port"]), number(&made.outputs["pid"]));
    assert!(get(port, "/crash").await.unwrap_or_default().is_empty());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut again = None;
    while again.is_none() {
        assert!(std::time::Instant::now() < deadline, "no restart");
        again = get(port, "/").await.filter(|body| body.starts_with("one"));
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let lookup = Lookup::Identity(made.identity.clone());
    let seen = world.observe("process", "workload", &context(RESOURCE, "x"), lookup).await;
    let Observation::Found(found) = seen else { panic!("{seen:?}") };
    assert_ne!(number(&found.outputs["pid"]), pid);
    world.drivers.stop().await;
}

#[tokio::test]
async fn stop_start_and_restart_act_once_per_key() {
    let world = World::new().await;
    let made = start(&world, "one").await;
    let port = number(&made.outputs["port"]);
    let act = async |action: &str, key: &str| {
        let call = context(RESOURCE, key);
        let request = invoke(&made.identity, action, json!({}), &[]);
        success(world.driver("process").invoke(&call, request, &MemorySink::new()).await).outputs
    };
    let stopped = act("stop", "k1").await;
    assert_eq!(stopped["state"], "stopped");
    assert!(get(port, "/").await.is_none());
    let started = act("start", "k2").await;
    assert_eq!((&started["port"], &started["state"]), (&made.outputs["port"], &json!("running")));
    let restarted = act("restart", "k3").await;
    assert_ne!(restarted["pid"], started["pid"]);
    let call = context(RESOURCE, "k3");
    let request = invoke(&made.identity, "restart", json!({}), &[]);
    let again = success(world.driver("process").invoke(&call, request, &MemorySink::new()).await);
    assert_eq!(again.outputs, restarted);
    assert!(alive(number(&restarted["pid"])));
    world.drivers.stop().await;
}

#[tokio::test]
async fn artifacts_of_others_are_refused() {
    let world = World::new().await;
    let foreign = artifact(&world.data, "globex");
    let below = foreign.strip_prefix(world.data.join("artifacts")).unwrap();
    let dotted = world.data.join("artifacts/acme/..").join(below);
    let loose = world.data.join("artifacts/acme/run1/app/app.py");
    std::fs::create_dir_all(loose.parent().unwrap()).unwrap();
    std::fs::write(&loose, SERVICE).unwrap();
    let missing = world.data.join("artifacts/acme/missing");
    for (index, path) in [foreign.as_path(), &dotted, &missing, &loose].into_iter().enumerate() {
        let call = context(RESOURCE, &format!("op/{index}"));
        let outcome = world.apply("process", "workload", &call, inputs(path, "x")).await;
        assert_eq!(outcome.failure().unwrap().code, FailureCode::InvalidArgument, "{}", path.display());
    }
}

#[tokio::test]
async fn a_changed_artifact_is_refused_with_both_digests() {
    let world = World::new().await;
    let artifact = artifact(&world.data, "acme");
    let swapped = format!("{SERVICE}# something else\n");
    std::fs::write(&artifact, &swapped).unwrap();
    let call = context(RESOURCE, "op/web/1");
    let outcome = world.apply("process", "workload", &call, inputs(&artifact, "one")).await;
    let failure = outcome.failure().unwrap();
    assert_eq!(failure.code, FailureCode::Changed, "{failure}");
    let named = |text: &str| format!("sha256:{}", pavior_core::digest::sha256_hex(text.as_bytes()));
    assert_eq!(failure.details["expected"], named(SERVICE));
    assert_eq!(failure.details["found"], named(&swapped));
    assert!(!failure.retryable && failure.message.contains("artifact `app.py`"), "{failure}");
    let releases: Vec<_> =
        walkdir::WalkDir::new(world.data.join("workloads")).into_iter().flatten().collect();
    assert!(releases.iter().all(|entry| entry.file_type().is_dir()), "nothing was installed: {releases:?}");
    // As it was, it is deployed.
    std::fs::write(&artifact, SERVICE).unwrap();
    let call = context(RESOURCE, "op/web/2");
    success(world.apply("process", "workload", &call, inputs(&artifact, "one")).await);
    world.drivers.stop().await;
}

/// The workload's own copy of the artifact.
fn copied(world: &World) -> PathBuf {
    let copies = walkdir::WalkDir::new(world.data.join("workloads")).into_iter().flatten();
    copies.map(walkdir::DirEntry::into_path).find(|path| path.ends_with("app.py")).unwrap()
}

/// What is asked for again is put right by it: the copy, and what runs.
#[tokio::test]
async fn what_was_changed_and_ended_is_made_whole_by_the_same_apply_of_another_operation() {
    let world = World::new().await;
    let made = start(&world, "one").await;
    let copy = copied(&world);
    std::fs::remove_file(&copy).unwrap();
    std::fs::write(&copy, format!("{SERVICE}# something else\n")).unwrap();
    get(number(&made.outputs["port"]), "/crash").await;
    let look = async || {
        let lookup = Lookup::Identity(made.identity.clone());
        world.observe("process", "workload", &context(RESOURCE, "look"), lookup).await
    };
    while !matches!(look().await, Observation::Partial { .. }) {
        tokio::task::yield_now().await;
    }
    let again = inputs(&artifact(&world.data, "acme"), "one");
    let call = context(RESOURCE, "later/web/1");
    let again = world.apply_over("process", "workload", &call, again, Some(&made), &["hunter2222"]).await;
    let again = success(again);
    assert_eq!(again.identity, made.identity);
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), SERVICE);
    assert!(get(number(&again.outputs["port"]), "/").await.unwrap().starts_with("one"));
    assert!(matches!(look().await, Observation::Found(_)), "{:?}", look().await);
    world.drivers.stop().await;
}

/// At the restart after a crash, at a restart that was asked for, and at the start of the platform.
#[tokio::test]
async fn a_copy_that_was_changed_after_deployment_is_not_started_again() {
    let world = World::new().await;
    let made = start(&world, "one").await;
    let (port, pid) = (number(&made.outputs["port"]), number(&made.outputs["pid"]));
    let copy = copied(&world);
    assert!(std::fs::metadata(&copy).unwrap().permissions().readonly());
    let swap = |content: &str| {
        std::fs::remove_file(&copy).unwrap();
        std::fs::write(&copy, content).unwrap();
    };
    let swapped = format!("{SERVICE}# something else\n");
    let named = |text: &str| format!("sha256:{}", pavior_core::digest::sha256_hex(text.as_bytes()));
    swap(&swapped);
    let restart = async |key: &str| {
        let request = invoke(&made.identity, "restart", json!({}), &[]);
        world.driver("process").invoke(&context(RESOURCE, key), request, &MemorySink::new()).await
    };
    let outcome = restart("k1").await;
    let failure = outcome.failure().unwrap();
    assert_eq!(failure.code, FailureCode::Changed, "{failure}");
    assert_eq!(
        [&failure.details["expected"], &failure.details["found"]],
        [&named(SERVICE), &named(&swapped)]
    );
    assert!(alive(pid), "what runs is not ended for what is not started");

    let told = |text: &str| text.contains(&named(SERVICE)) && text.contains(&named(&swapped));
    let degraded = async |driver: &std::sync::Arc<dyn pavior_driver::Driver>| loop {
        if let Health::Degraded(what) = driver.health().await
            && told(&what)
        {
            break;
        }
        tokio::task::yield_now().await;
    };
    get(port, "/crash").await;
    degraded(&world.driver("process")).await;
    assert!(get(port, "/").await.is_none());
    let logs = invoke(&made.identity, "logs", json!({}), &[]);
    let text =
        success(world.driver("process").invoke(&context(RESOURCE, "k2"), logs, &MemorySink::new()).await);
    assert!(told(&text.outputs["log"].to_string()), "{}", text.outputs);

    world.drivers.stop().await;
    let (data, _directory) = world.end();
    let drivers = pavior_drivers::build(&config(&data)).unwrap();
    reconcile(&drivers, &[&made.identity]).await;
    let driver = drivers.registry.get("process").unwrap();
    degraded(&driver).await;
    // As it was, it comes up by itself.
    swap(SERVICE);
    while driver.health().await != Health::Ok {
        tokio::task::yield_now().await;
    }
    let lookup = Lookup::Identity(made.identity.clone());
    let request = pavior_driver::ObserveRequest { resource_type: "workload".to_owned(), lookup };
    let seen = driver.observe(&context(RESOURCE, "x"), request).await;
    assert!(matches!(&seen, Observation::Found(found) if found.outputs["port"] == port), "{seen:?}");
    drivers.stop().await;
}

#[tokio::test]
async fn a_start_that_is_cancelled_leaves_nothing() {
    let world = World::new().await;
    let call = context(RESOURCE, "op/web/1");
    let mut never = inputs(&artifact(&world.data, "acme"), "one");
    never["health"]["path"] = json!("/");
    never["command"] = json!(["sh", "-c", "echo $$ > pid; exec sleep 600"]);
    let cancel = call.cancel.clone();
    let data = world.data.clone();
    let watch = tokio::spawn(async move {
        let pid = wait_for("the process", || {
            let mut files = walkdir::WalkDir::new(data.join("workloads")).into_iter().flatten();
            let file = files.find(|file| file.file_name() == "pid")?;
            std::fs::read_to_string(file.path()).ok()?.trim().parse::<u64>().ok()
        })
        .await;
        cancel.cancel();
        pid
    });
    let outcome = world.apply("process", "workload", &call, never).await;
    assert_eq!(outcome.failure().unwrap().code, FailureCode::Cancelled, "{outcome:?}");
    assert!(!alive(watch.await.unwrap()));
}

/// Not a test of its own: run by `kill_9_leaves_no_orphan` in a process that can be killed.
#[tokio::test]
async fn supervisor_for_kill_9() {
    let Ok(data) = std::env::var("PAVIOR_TEST_SUPERVISOR_DATA") else { return };
    let drivers = pavior_drivers::build(&config(Path::new(&data))).unwrap();
    let call = context(RESOURCE, "op/web/1");
    let request = pavior_driver::ApplyRequest {
        resource_type: "workload".to_owned(),
        prior: None,
        inputs: inputs(&artifact(Path::new(&data), "acme"), "one"),
        sensitive: Vec::new(),
        declaration_digest: String::new(),
    };
    let driver = drivers.registry.get("process").unwrap();
    let made = success(driver.apply(&call, request, &MemorySink::new()).await);
    let mut outputs = made.outputs.clone();
    outputs["identity"] = json!(made.identity);
    std::fs::write(Path::new(&data).join("made.tmp"), outputs.to_string()).unwrap();
    std::fs::rename(Path::new(&data).join("made.tmp"), Path::new(&data).join("made")).unwrap();
    drivers.run(CancellationToken::new()).await;
}

#[tokio::test]
async fn kill_9_leaves_no_orphan_and_a_restart_brings_it_back() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().canonicalize().unwrap().join("data");
    let mut supervisor = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::supervisor_for_kill_9", "--nocapture"])
        .env("PAVIOR_TEST_SUPERVISOR_DATA", &data)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let made: Value = wait_for("the workload", || {
        serde_json::from_str(&std::fs::read_to_string(data.join("made")).ok()?).ok()
    })
    .await;
    let (port, pid) = (number(&made["port"]), number(&made["pid"]));
    let child = child_of(port).await;
    supervisor.start_kill().unwrap();
    supervisor.wait().await.unwrap();

    // The next supervisor starts at once, while the old process may still be ending.
    let drivers = pavior_drivers::build(&config(&data)).unwrap();
    reconcile(&drivers, &[made["identity"].as_str().unwrap()]).await;
    assert!(!alive(pid) && !alive(child), "an orphan is alive");
    let body = get(port, "/").await;
    assert!(body.as_ref().is_some_and(|body| body.starts_with("one ")), "not back on its port: {body:?}");
    let call = context(RESOURCE, "op/web/1");
    let request = pavior_driver::ApplyRequest {
        resource_type: "workload".to_owned(),
        prior: None,
        inputs: inputs(&artifact(&data, "acme"), "one"),
        sensitive: Vec::new(),
        declaration_digest: String::new(),
    };
    // The operation that was cut off replays its step: the same workload, not a second one.
    let driver = drivers.registry.get("process").unwrap();
    let again = success(driver.apply(&call, request, &MemorySink::new()).await);
    assert_eq!(again.outputs["port"], made["port"]);
    let starts = walkdir::WalkDir::new(data.join("workloads"))
        .into_iter()
        .flatten()
        .filter(|f| f.file_name() == "starts");
    let counts: Vec<u64> = starts.map(|file| file.metadata().unwrap().len()).collect();
    assert_eq!(counts, [2]);
    drivers.stop().await;
    assert!(!alive(number(&again.outputs["pid"])));
}

#[tokio::test]
async fn without_a_supervisor_the_shim_ends_everything() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().canonicalize().unwrap().join("data");
    let mut supervisor = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::supervisor_for_kill_9", "--nocapture"])
        .env("PAVIOR_TEST_SUPERVISOR_DATA", &data)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let made: Value = wait_for("the workload", || {
        serde_json::from_str(&std::fs::read_to_string(data.join("made")).ok()?).ok()
    })
    .await;
    let (pid, child) = (number(&made["pid"]), child_of(number(&made["port"])).await);
    supervisor.start_kill().unwrap();
    supervisor.wait().await.unwrap();
    wait_for("the process and its child to end", || (!alive(pid) && !alive(child)).then_some(())).await;
}
