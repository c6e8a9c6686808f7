//! A kill at every write of a record: what an apply asked for is found by its key only when it is there, and the same
//! call again makes it so.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures::FutureExt as _;
use pavior_driver::{CallContext, ExposeSecret, Lookup, Observation, Outcome, SecretString, Success};
use pavior_drivers::{DriversConfig, OnRecord};
use serde_json::{Value, json};

use crate::world::{World, context, get, reconcile, success};

/// More writes than any call makes.
const MOST: i64 = 60;

/// How many writes are left until the call is broken off; none is counted while it is negative.
#[derive(Clone)]
struct Fuse(Arc<AtomicI64>);

impl Fuse {
    fn burn(&self) {
        match self.0.load(Ordering::SeqCst) {
            0 => std::panic::resume_unwind(Box::new("killed")),
            left if left > 0 => drop(self.0.fetch_sub(1, Ordering::SeqCst)),
            _ => {}
        }
    }
}

/// What a driver is tried with.
struct Kind {
    driver: &'static str,
    resource_type: &'static str,
    first: Value,
    next: Value,
    configure: Box<dyn Fn(&mut DriversConfig)>,
}

/// What the call does to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Create,
    Update,
    Replace,
}

/// A world, the resource in it, and what was there before.
struct Scene {
    world: World,
    fuse: Fuse,
    resource: String,
    made: Option<Success>,
}

impl Scene {
    async fn new(kind: &Kind, way: Way) -> Self {
        let fuse = Fuse(Arc::new(AtomicI64::new(-1)));
        let burning = fuse.clone();
        let world = World::with(|config| {
            (kind.configure)(config);
            config.on_record = OnRecord::new(move |_| burning.burn());
        })
        .await;
        let resource =
            format!("organizations/acme/projects/p/environments/dev{}/resources/x", world.data.display());
        let mut scene = Self { world, fuse, resource, made: None };
        if kind.driver == "pipeline" {
            scene.world.repository("source", &[("a", "b")]).await;
        }
        if way != Way::Create {
            scene.made = Some(success(scene.apply(kind, "1", &kind.first, None).await));
        }
        scene
    }

    fn call(&self, key: &str, attempt: u32) -> CallContext {
        let mut call = context(&self.resource, &format!("op{}/{key}", self.resource));
        (call.attempt, call.fence) = (attempt, i64::from(attempt));
        call
    }

    async fn apply(&self, kind: &Kind, key: &str, inputs: &Value, prior: Option<&Success>) -> Outcome {
        self.apply_as(kind, &self.call(key, 1), inputs, prior).await
    }

    async fn apply_as(
        &self,
        kind: &Kind,
        call: &CallContext,
        inputs: &Value,
        prior: Option<&Success>,
    ) -> Outcome {
        let inputs = self.here(inputs);
        self.world.apply_over(kind.driver, kind.resource_type, call, inputs, prior, &[]).await
    }

    /// Inputs that name the world's own address.
    fn here(&self, inputs: &Value) -> Value {
        serde_json::from_str(&inputs.to_string().replace("http://here", &self.world.url)).unwrap()
    }

    /// What the engine does in a step of this kind.
    async fn step(&self, kind: &Kind, way: Way, attempt: u32) -> Outcome {
        let call = self.call("2", attempt);
        if let (Way::Replace, Some(made)) = (way, &self.made) {
            success(self.world.destroy(kind.driver, kind.resource_type, &call, &made.identity).await);
        }
        let prior = self.made.as_ref().filter(|_| way == Way::Update);
        self.apply_as(kind, &call, &kind.next, prior).await
    }

    /// The process ends, and another one comes up over its folder.
    async fn next_process(self, kind: &Kind) -> Self {
        let Self { world, resource, made, .. } = self;
        // Its workloads die with a process.
        world.drivers.stop().await;
        let world = world.again(|config| (kind.configure)(config)).await;
        let declared: Vec<&str> = made.iter().map(|made| made.identity.as_str()).collect();
        reconcile(&world.drivers, &declared).await;
        Self { world, fuse: Fuse(Arc::new(AtomicI64::new(-1))), resource, made }
    }
}

/// What is really there of a thing, in the words of its inputs.
async fn real(kind: &Kind, scene: &Scene, seen: &Success) -> Value {
    match kind.driver {
        "git" => {
            let path = scene.world.repository_path(seen);
            let mut shown = tokio::process::Command::new("git");
            shown.arg("--git-dir").arg(path).args(["show", "main:README.md"]);
            let shown = shown.output().await.unwrap().stdout;
            json!({ "files": { "README.md": String::from_utf8(shown).unwrap() } })
        }
        "process" => {
            let port = seen.outputs["port"].as_u64().unwrap();
            json!(get(port, "/").await)
        }
        "postgres-database" => {
            let url = seen.secrets.get("url").unwrap().expose_secret().to_owned();
            let limit = crate::postgres::connection_limit(&url, &seen.identity).await;
            json!({ "size": if limit == 20 { "small" } else { "large" } })
        }
        "pipeline" => {
            let hash = pavior_core::digest::sha256_hex(seen.identity.as_bytes());
            let record = scene.world.data.join(format!("drivers/pipeline/things/{hash}.json"));
            let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
            record["data"].clone()
        }
        _ => {
            // A file takes all sizes.
            let file = format!("databases/{}.db", seen.outputs["database"].as_str().unwrap());
            assert!(scene.world.data.join(file).is_file());
            kind.next.clone()
        }
    }
}

/// What `real` says when the thing is as the inputs want it.
fn wanted(kind: &Kind, scene: &Scene, inputs: &Value) -> Value {
    if kind.driver == "process" { inputs["variables"]["TEXT"].clone() } else { scene.here(inputs) }
}

/// Breaks the step off before its write number `point`; false when it has none.
async fn broken_off(kind: &Kind, way: Way, point: i64) -> bool {
    let scene = Scene::new(kind, way).await;
    scene.fuse.0.store(point, Ordering::SeqCst);
    let ended = AssertUnwindSafe(scene.step(kind, way, 1)).catch_unwind().await;
    if let Ok(outcome) = ended {
        success(outcome);
        scene.world.drivers.stop().await;
        return false;
    }
    let scene = scene.next_process(kind).await;
    let at = format!("{way:?} of {} broken off before write {point}", kind.driver);
    let call = scene.call("2", 2);
    let key = Lookup::Key(call.idempotency_key.clone());
    let look = async || scene.world.observe(kind.driver, kind.resource_type, &call, key.clone()).await;
    match look().await {
        Observation::Found(found) => {
            let there = real(kind, &scene, &found.into()).await;
            assert_eq!(there, wanted(kind, &scene, &kind.next), "{at}: found, and another one is there");
        }
        Observation::Absent | Observation::Partial { .. } => {}
        Observation::Indeterminate { message } => panic!("{at}: {message}"),
    }
    let made = success(scene.step(kind, way, 2).await);
    assert_eq!(real(kind, &scene, &made).await, wanted(kind, &scene, &kind.next), "{at}, and done again");
    let seen = look().await;
    assert!(matches!(&seen, Observation::Found(found) if found.identity == made.identity), "{at}: {seen:?}");
    let remove = scene.call("3", 1);
    success(scene.world.destroy(kind.driver, kind.resource_type, &remove, &made.identity).await);
    scene.world.drivers.stop().await;
    true
}

async fn at_every_write(kind: Kind) {
    for way in [Way::Create, Way::Update, Way::Replace] {
        let mut points = 0;
        while broken_off(&kind, way, points).await {
            points += 1;
            assert!(points < MOST, "{way:?} does not end");
        }
        assert!(points > 2, "{way:?} of {} writes nothing", kind.driver);
    }
}

fn kind(driver: &'static str, resource_type: &'static str, first: Value, next: Value) -> Kind {
    Kind { driver, resource_type, first, next, configure: Box::new(|_| {}) }
}

#[tokio::test]
async fn git_is_killed_at_every_write() {
    let readme = |text: &str| json!({ "files": { "README.md": text } });
    at_every_write(kind("git", "git-repository", readme("one\n"), readme("two\n"))).await;
}

#[tokio::test]
async fn sqlite_is_killed_at_every_write() {
    let size = |size: &str| json!({ "size": size });
    at_every_write(kind("sqlite-database", "sql-database", size("small"), size("large"))).await;
}

#[tokio::test]
async fn postgres_is_killed_at_every_write() {
    let Some(db) = pavior_testkit::db::postgres().await else { return };
    let size = |size: &str| json!({ "size": size });
    let url = SecretString::from(db.url.clone());
    let kind = kind("postgres-database", "sql-database", size("small"), size("large"));
    at_every_write(Kind {
        configure: Box::new(move |config| config.postgres_url = Some(url.clone())),
        ..kind
    })
    .await;
}

#[tokio::test]
async fn pipeline_is_killed_at_every_write() {
    let steps = |run: &str| json!({ "repository": "http://here/git/acme/source.git", "steps": [{ "name": "test", "run": run }] });
    at_every_write(kind("pipeline", "ci-pipeline", steps("true"), steps("false"))).await;
}

#[tokio::test]
async fn process_is_killed_at_every_write() {
    const SERVE: &str = "import os, _socket as s\nl = s.socket()\nl.bind(('127.0.0.1', int(os.environ['PORT'])))\n\
                         l.listen(9)\nwhile True:\n c, _ = l._accept()\n c = s.socket(fileno=c)\n c.recv(4096)\n \
                         c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n' + os.environ['TEXT'].encode())\n c.close()";
    let python = if PathBuf::from("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
    let serve = |text: &str| json!({ "command": [python, "-S", "-E", "-c", SERVE], "variables": { "TEXT": text }, "health": { "path": "/" } });
    at_every_write(kind("process", "workload", serve("one"), serve("two"))).await;
}
