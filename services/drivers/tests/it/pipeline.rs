use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use pavior_core::digest::Digest;
use pavior_driver::conformance::reads_artifact;
use pavior_driver::{
    ArtifactFormat, CallContext, FailureCode, Lookup, MemorySink, Observation, Outcome, PinRequest,
    ReadArtifactRequest, Success,
};
use serde_json::{Value, json};

use crate::world::{World, alive, context, invoke, success, wait_for};

async fn pipeline(world: &World, steps: Value, artifacts: Value) -> Success {
    let repository =
        world.repository("hello", &[("app.sh", "echo hello\n"), ("data/x-1.txt", "one\n")]).await;
    let call = context("organizations/acme/projects/hello/resources/pipeline", "op/pipeline/1");
    let inputs = json!({"repository": repository.outputs["url"], "steps": steps, "artifacts": artifacts});
    success(world.apply("pipeline", "ci-pipeline", &call, inputs).await)
}

fn run(key: &str) -> CallContext {
    context(&format!("organizations/acme/projects/hello/pipelines/main/runs/{key}"), &format!("{key}/run/1"))
}

#[tokio::test]
async fn a_run_tests_builds_and_keeps_artifacts() {
    let world = World::new().await;
    let steps = json!([
        {"name": "test", "run": "echo \"token=$TOKEN home=$HOME\"; echo oops >&2; test -z \"${CARGO_MANIFEST_DIR:-}\""},
        {"name": "build", "run": "mkdir out; sh app.sh > out/app-1.0; chmod +x out/app-1.0; echo $PARAMETER_SIZE", "timeout": "60s"},
        {"name": "list", "run": ["ls", "-d", "out"]},
    ]);
    let artifacts = json!([{"name": "app", "path": "out/app-*"}, {"name": "data", "path": "data"}]);
    let made = pipeline(&world, steps, artifacts).await;
    let sink = MemorySink::new();
    let arguments =
        json!({"ref": "main", "parameters": {"size": "small"}, "secrets": {"TOKEN": "hunter2222"}});
    let request = invoke(&made.identity, "run", arguments, &[]);
    let first = success(world.driver("pipeline").invoke(&run("r1"), request.clone(), &sink).await);
    let log = sink.everything();
    assert!(log.contains("token=*** home=") && log.contains("oops") && log.contains("small"), "{log}");
    assert!(!log.contains("hunter2222"));
    let artifacts = first.outputs["artifacts"].as_array().unwrap();
    let app = artifacts[0]["path"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(app).unwrap(), "hello\n");
    assert_eq!(artifacts[0]["sha256"], "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
    assert_eq!(artifacts[0]["size"], 6);
    assert!(std::path::Path::new(artifacts[1]["path"].as_str().unwrap()).join("x-1.txt").exists());
    let digest = Digest::of(b"hello\n");
    assert_eq!(reads_artifact(&*world.driver("pipeline"), "acme", digest).await, Ok(()));
    let names: Vec<&Value> =
        first.outputs["steps"].as_array().unwrap().iter().map(|step| &step["name"]).collect();
    assert_eq!(names, ["test", "build", "list"]);
    assert_eq!(std::fs::read_dir(world.data.join("runs")).unwrap().count(), 0);
    // The same key gives the first result without running again.
    let quiet = MemorySink::new();
    let second = success(world.driver("pipeline").invoke(&run("r1"), request, &quiet).await);
    assert_eq!(second.outputs, first.outputs);
    assert!(quiet.log_text().is_empty());
    let key = Lookup::Key("r1/run/1".to_owned());
    let seen = world.observe("pipeline", "ci-pipeline", &run("r1"), key).await;
    assert!(matches!(seen, Observation::Found(found) if found.outputs == first.outputs));
    let other = invoke(&made.identity, "run", json!({"ref": "main"}), &[]);
    let refused = world.driver("pipeline").invoke(&run("r1"), other, &MemorySink::new()).await;
    assert_eq!(refused.failure().unwrap().code, FailureCode::InvalidArgument);
}

/// Longer lines than are kept whole, a secret over each cut, in pieces that come one by one, and one of two lines.
#[tokio::test]
async fn a_secret_is_masked_wherever_its_line_is_cut() {
    let world = World::new().await;
    let script = "p() { head -c $1 /dev/zero | tr '\\0' x; }; p 8187; echo $TOKEN; p 8191 >&2; echo $TOKEN >&2; \
                  printf hunter; sleep 0.1; echo 2222-secret; p 16383; printf '%s\\n' \"$KEY\"; printf hunter2222-";
    let made = pipeline(&world, json!([{"name": "test", "run": script}]), json!([])).await;
    let sink = MemorySink::new();
    let key = "a1\nb2\nc3\n";
    let arguments = json!({"secrets": {"TOKEN": "hunter2222-secret", "KEY": key}});
    let request = invoke(&made.identity, "run", arguments, &[]);
    success(world.driver("pipeline").invoke(&run("r1"), request, &sink).await);
    let log = sink.log_text();
    let short: String = log.replace('x', "");
    assert!(!short.contains("2222-secret") && !short.contains("b2"), "{short}");
    assert_eq!(short.matches("***").count(), 4, "{short}");
    assert!(short.ends_with("hunter2222-\n"), "{short}");
}

#[tokio::test]
async fn empty_lines_are_bounded_too() {
    let world = World::with(|config| config.pipeline.max_log_bytes = 64 * 1024).await;
    let made =
        pipeline(&world, json!([{"name": "test", "run": "yes '' | head -n 1000000"}]), json!([])).await;
    let sink = MemorySink::new();
    let request = invoke(&made.identity, "run", json!({}), &[]);
    success(world.driver("pipeline").invoke(&run("r1"), request, &sink).await);
    let log = sink.log_text();
    assert!(log.lines().count() < 1_100, "{}", log.lines().count());
    assert!(log.ends_with("the log is longer than allowed; the rest is dropped\n"));
}

#[tokio::test]
async fn a_run_is_pinned_to_the_commit_that_its_branch_was() {
    let world = World::new().await;
    let made = pipeline(&world, json!([{"name": "test", "run": "true"}]), json!([])).await;
    let pin = |organization: &str, inputs: Value| PinRequest {
        organization: organization.to_owned(),
        resource_type: "ci-pipeline".to_owned(),
        action: Some((made.identity.clone(), "run".to_owned())),
        inputs,
    };
    let driver = world.driver("pipeline");
    let pinned = driver.pin(pin("acme", json!({"ref": "main"}))).await.unwrap();
    let commit = pinned["commit"].as_str().unwrap().to_owned();
    assert_eq!(commit.len(), 40, "{pinned}");
    assert_eq!(driver.pin(pin("acme", json!({}))).await.unwrap(), pinned);
    // What is pinned is laid over what was asked, and wins.
    let arguments = json!({"ref": "gone-by-then", "commit": commit});
    let request = invoke(&made.identity, "run", arguments, &[]);
    let ran = success(driver.invoke(&run("r1"), request, &MemorySink::new()).await);
    assert_eq!(ran.outputs["commit"], commit);
    for (organization, inputs, code) in [
        ("acme", json!({"ref": "gone"}), FailureCode::InvalidArgument),
        ("globex", json!({"ref": "main"}), FailureCode::NotFound),
    ] {
        let failure = driver.pin(pin(organization, inputs)).await.unwrap_err();
        assert_eq!(failure.code, code, "{failure}");
    }
}

#[tokio::test]
async fn a_failing_step_is_named_and_nothing_is_kept() {
    let world = World::new().await;
    let steps = json!([{"name": "compile", "run": "echo before; exit 7"}, {"name": "never", "run": "touch /tmp/never"}]);
    let made = pipeline(&world, steps, json!([{"name": "app", "path": "app.sh"}])).await;
    let sink = MemorySink::new();
    let outcome = world
        .driver("pipeline")
        .invoke(&run("r1"), invoke(&made.identity, "run", json!({}), &[]), &sink)
        .await;
    let failure = outcome.failure().unwrap();
    assert_eq!(failure.code, FailureCode::WorkFailed);
    // All steps are told of, those that were not run as well.
    let told = sink.checkpoints().pop().unwrap();
    let states: Vec<_> =
        told["steps"].as_array().unwrap().iter().map(|step| (&step["state"], &step["exit_code"])).collect();
    assert_eq!(states, [(&json!("FAILED"), &json!(7)), (&json!("SKIPPED"), &json!(null))]);
    assert!(told["steps"][0]["end_ms"].as_u64() <= told["elapsed_ms"].as_u64(), "{told}");
    assert!(failure.message.contains("`compile`") && failure.message.contains('7'), "{failure}");
    assert!(!world.data.join("artifacts/acme").exists(), "nothing is kept");
    assert_eq!(std::fs::read_dir(world.data.join("runs")).unwrap().count(), 0);
    for (index, arguments) in [
        json!({"commit": "deadbeef"}),
        json!({"ref": "--upload-pack=x"}),
        json!({"steps": [{"name": "x", "run": "true", "nonsense": 1}]}),
        json!({"artifacts": [{"name": "app", "path": "x"}], "secrets": {"bad name": "x"}}),
    ]
    .into_iter()
    .enumerate()
    {
        let request = invoke(&made.identity, "run", arguments.clone(), &[]);
        let call = run(&format!("bad{index}"));
        let outcome = world.driver("pipeline").invoke(&call, request, &MemorySink::new()).await;
        assert_eq!(outcome.failure().unwrap().code, FailureCode::InvalidArgument, "{arguments}");
    }
    for path in ["../../secret", "/etc/passwd", "missing", "data/*", "link"] {
        let steps = json!([{"name": "x", "run": "ln -s /etc/passwd link; touch data/y data/z"}]);
        let request = invoke(
            &made.identity,
            "run",
            json!({"steps": steps, "artifacts": [{"name": "a", "path": path}]}),
            &[],
        );
        let outcome = world
            .driver("pipeline")
            .invoke(&run(&path.replace(['/', '.', '*'], "p")), request, &MemorySink::new())
            .await;
        assert_eq!(outcome.failure().unwrap().code, FailureCode::WorkFailed, "{path}");
    }
}

/// To read a pipe is to wait for somebody who writes, and a link may lead out of the run's folder: neither is an artifact.
#[tokio::test]
async fn only_files_and_folders_are_artifacts() {
    let world = World::new().await;
    let made = pipeline(&world, json!([{"name": "make", "run": "true"}]), json!([])).await;
    for (key, script, why) in [
        ("pipe", "mkfifo out", "is neither a file nor a folder"),
        ("link", "ln -s /etc/passwd out", "does not exist"),
        ("pipe-within", "mkdir out; mkfifo out/pipe", "`pipe` is neither a file nor a folder"),
        ("link-within", "mkdir out; ln -s /etc/passwd out/link", "`link` is neither a file nor a folder"),
    ] {
        let steps = json!([{"name": "make", "run": script}]);
        let arguments = json!({"steps": steps, "artifacts": [{"name": "a", "path": "out"}]});
        let request = invoke(&made.identity, "run", arguments, &[]);
        let outcome = world.driver("pipeline").invoke(&run(key), request, &MemorySink::new()).await;
        let failure = outcome.failure().unwrap();
        assert_eq!(failure.code, FailureCode::WorkFailed, "{key}");
        assert!(failure.message.contains(why), "{failure}");
    }
}

#[tokio::test]
async fn a_step_that_takes_too_long_is_killed_with_all_it_started() {
    let world = World::new().await;
    let script = "trap '' INT TERM; echo pid=$$; (trap '' INT TERM; setsid sh -c 'echo daemon=$$; exec sleep 600') & wait; sleep 600";
    let steps = json!([{"name": "hang", "run": script, "timeout": "1s"}]);
    let made = pipeline(&world, steps, json!([])).await;
    let sink = MemorySink::new();
    let started = Instant::now();
    let outcome = world
        .driver("pipeline")
        .invoke(&run("r1"), invoke(&made.identity, "run", json!({}), &[]), &sink)
        .await;
    let failure = outcome.failure().unwrap();
    assert_eq!(failure.code, FailureCode::Timeout, "{failure}");
    assert!(failure.message.contains("`hang`"));
    assert!(started.elapsed() < Duration::from_secs(20));
    for name in ["pid=", "daemon="] {
        let log = sink.log_text();
        let pid = log.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap();
        assert!(!alive(pid), "{name}{pid} is alive");
    }
}

#[tokio::test]
async fn cancel_interrupts_first() {
    let world = World::new().await;
    let script = "trap 'echo interrupted; exit 1' INT; echo ready; while true; do sleep 0.05; done";
    let made = pipeline(&world, json!([{"name": "loop", "run": script}]), json!([])).await;
    let (sink, call) = (Arc::new(MemorySink::new()), run("r1"));
    let (driver, request) = (world.driver("pipeline"), invoke(&made.identity, "run", json!({}), &[]));
    let task = {
        let (sink, call) = (Arc::clone(&sink), call.clone());
        tokio::spawn(async move { driver.invoke(&call, request, sink.as_ref()).await })
    };
    sink.logged("ready").await;
    call.cancel.cancel();
    let outcome: Outcome = task.await.unwrap();
    assert_eq!(outcome.failure().unwrap().code, FailureCode::Cancelled);
    assert!(sink.log_text().contains("interrupted"));
}

#[tokio::test]
async fn a_run_that_is_dropped_leaves_no_process() {
    let world = World::new().await;
    let made =
        pipeline(&world, json!([{"name": "loop", "run": "echo pid=$$; exec sleep 600"}]), json!([])).await;
    let sink = Arc::new(MemorySink::new());
    let (driver, request) = (world.driver("pipeline"), invoke(&made.identity, "run", json!({}), &[]));
    let task = {
        let sink = Arc::clone(&sink);
        tokio::spawn(async move { driver.invoke(&run("r1"), request, sink.as_ref()).await })
    };
    sink.logged("pid=").await;
    task.abort();
    let log = sink.log_text();
    let pid = log.lines().find_map(|line| line.strip_prefix("pid=")).unwrap().parse().unwrap();
    wait_for("the step to end", || (!alive(pid)).then_some(())).await;
}

/// Two attempts of one step: the first is dropped while its script takes no notice of any signal.
#[tokio::test]
async fn the_next_attempt_begins_when_nothing_of_the_last_one_runs() {
    let world = World::with(|config| config.pipeline.grace = Duration::from_secs(3)).await;
    let notes = world.data.parent().unwrap().join("notes");
    std::fs::create_dir(&notes).unwrap();
    let script = "trap '' INT TERM; cd $NOTES; for pid in pid-*; do kill -0 ${pid#pid-} 2>/dev/null && touch beside; done; \
                  touch pid-$$; echo begun; pwd; until [ -e go ]; do sleep 0.02; done";
    let steps = json!([{"name": "loop", "run": script, "environment": {"NOTES": notes}}]);
    let made = pipeline(&world, steps, json!([])).await;
    let sink = Arc::new(MemorySink::new());
    let (driver, request) = (world.driver("pipeline"), invoke(&made.identity, "run", json!({}), &[]));
    let first = {
        let (sink, driver, request) = (Arc::clone(&sink), Arc::clone(&driver), request.clone());
        tokio::spawn(async move { driver.invoke(&run("r1"), request, sink.as_ref()).await })
    };
    sink.logged("begun").await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    std::fs::write(notes.join("ready"), "").unwrap();
    let mut again = run("r1");
    (again.attempt, again.fence) = (2, 2);
    let next = Arc::new(MemorySink::new());
    let second = {
        let next = Arc::clone(&next);
        tokio::spawn(async move { driver.invoke(&again, request, next.as_ref()).await })
    };
    next.logged("begun").await;
    std::fs::write(notes.join("go"), "").unwrap();
    success(second.await.unwrap());
    assert!(!notes.join("beside").exists(), "two attempts ran beside each other");
    let runs = world.data.join("runs");
    wait_for("the workspace to go", || (std::fs::read_dir(&runs).unwrap().count() == 0).then_some(())).await;
}

/// What a process that was killed left is waited for, and goes: with a next attempt, or without one.
#[tokio::test]
async fn what_a_killed_process_left_is_waited_for() {
    let world = World::new().await;
    let made = pipeline(&world, json!([{"name": "test", "run": "true"}]), json!([])).await;
    let id = pavior_core::digest::sha256_hex(b"r1/run/1")[..16].to_owned();
    let runs = world.data.join("runs");
    let left = || {
        // As the shim starts it, in a group of its own.
        let child = std::process::Command::new("sh")
            .args(["-c", "trap '' TERM; while true; do sleep 0.02; done"])
            .process_group(0)
            .spawn()
            .unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let start = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().to_owned();
        let process = format!("{} {start}", child.id());
        std::fs::create_dir_all(runs.join(&id)).unwrap();
        std::fs::write(runs.join(format!("{id}.status")), format!("{process} {process}\n")).unwrap();
        child
    };
    let ended = |mut child: std::process::Child| {
        assert_eq!(child.try_wait().unwrap().and_then(|status| status.signal()), Some(9));
    };
    let child = left();
    let request = invoke(&made.identity, "run", json!({}), &[]);
    success(world.driver("pipeline").invoke(&run("r1"), request, &MemorySink::new()).await);
    ended(child);
    let child = left();
    world.driver("pipeline").reconcile(&std::collections::BTreeSet::new()).await;
    ended(child);
    assert_eq!(std::fs::read_dir(&runs).unwrap().count(), 0);
}

#[tokio::test]
async fn another_organizations_repository_is_refused() {
    let world = World::new().await;
    let repository = world.repository("hello", &[("a", "b")]).await;
    for reference in [
        repository.outputs["url"].clone(),
        repository.outputs["url"].clone(),
        json!("/etc"),
        json!("https://example.com/x.git"),
    ] {
        let mut call = context("organizations/globex/projects/p/resources/pipeline", "op/pipeline/1");
        call.organization = "globex".to_owned();
        let outcome = world
            .apply("pipeline", "ci-pipeline", &call, json!({"repository": reference, "steps": []}))
            .await;
        assert_eq!(outcome.failure().unwrap().code, FailureCode::InvalidArgument, "{reference}");
    }
}

#[tokio::test]
async fn a_rust_service_is_tested_and_built_offline() {
    let world = World::new().await;
    let files = [
        ("Cargo.toml", "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n"),
        (
            "src/main.rs",
            "fn main() { println!(\"built\"); }\n#[test]\nfn it_works() { assert_eq!(1 + 1, 2); }\n",
        ),
    ];
    let repository = world.repository("rusty", &files).await;
    let call = context("organizations/acme/projects/rusty/resources/pipeline", "op/pipeline/1");
    let inputs = json!({
        "repository": repository.outputs["url"],
        "steps": [
            {"name": "test", "run": "cargo test --offline", "timeout": "300s"},
            {"name": "build", "run": "cargo build --offline", "timeout": "300s"},
        ],
        "artifacts": [{"name": "app", "path": "target/debug/hello"}],
    });
    let made = success(world.apply("pipeline", "ci-pipeline", &call, inputs).await);
    let sink = MemorySink::new();
    let outcome = world
        .driver("pipeline")
        .invoke(&run("r1"), invoke(&made.identity, "run", json!({}), &[]), &sink)
        .await;
    assert!(outcome.success().is_some(), "{outcome:?}\n{}", sink.log_text());
    let app = success(outcome).outputs["artifacts"][0]["path"].as_str().unwrap().to_owned();
    let output = tokio::process::Command::new(&app).output().await.unwrap();
    assert_eq!(output.stdout, b"built\n");
    assert!(sink.log_text().contains("it_works ... ok"));
    let call = context("organizations/acme/projects/rusty/resources/pipeline", "op/pipeline/2");
    success(world.destroy("pipeline", "ci-pipeline", &call, &made.identity).await);
    assert!(!std::path::Path::new(&app).exists());
}

#[tokio::test]
async fn artifacts_are_read_whole_or_not_at_all() {
    let world = World::new().await;
    let steps = json!([{"name": "make", "run": "mkdir -p site/css; head -c 200000 /dev/zero > big; echo a > site/css/a; cp app.sh site"}]);
    let artifacts = json!([{"name": "big", "path": "big"}, {"name": "site", "path": "site"}]);
    let made = pipeline(&world, steps, artifacts).await;
    let driver = world.driver("pipeline");
    let request = invoke(&made.identity, "run", json!({}), &[]);
    let left =
        success(driver.invoke(&run("r1"), request, &MemorySink::new()).await).outputs["artifacts"].clone();
    let digest = |index: usize| Digest::from_hex(left[index]["sha256"].as_str().unwrap()).unwrap();
    let ask = |digest| ReadArtifactRequest { organization: "acme".to_owned(), digest };
    assert_eq!(reads_artifact(&*driver, "acme", digest(0)).await, Ok(()));

    let site = driver.read_artifact(ask(digest(1))).await.unwrap();
    assert_eq!((site.file_name.as_str(), site.format), ("site", ArtifactFormat::Tar));
    let archive = site.pieces.try_collect::<Vec<_>>().await.unwrap().concat();
    let mut archive = tar::Archive::new(&*archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        (entry.path().unwrap().display().to_string(), text)
    });
    let want = [("app.sh", "echo hello\n"), ("css", ""), ("css/a", "a\n")];
    assert_eq!(entries.collect::<Vec<_>>(), want.map(|(path, text)| (path.to_owned(), text.to_owned())));

    // What somebody has changed on the disk is not given out as whole.
    let big = std::path::Path::new(left[0]["path"].as_str().unwrap());
    std::fs::set_permissions(big, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(big, "changed").unwrap();
    let changed = driver.read_artifact(ask(digest(0))).await.unwrap().pieces.try_collect::<Vec<_>>().await;
    let failure = changed.unwrap_err();
    assert_eq!(failure.code, FailureCode::Changed);
    assert_eq!(failure.details["expected"], digest(0).to_string());
    assert_eq!(failure.details["found"], Digest::of(b"changed").to_string());
    for organization in ["globex", "..", "acme/pipeline"] {
        let request = ReadArtifactRequest { organization: organization.to_owned(), digest: digest(0) };
        let failure = driver.read_artifact(request).await.unwrap_err();
        assert_eq!(failure.code, FailureCode::NotFound, "{organization}");
        assert_eq!(failure.message, format!("artifact `{}` does not exist", digest(0)));
    }
}
