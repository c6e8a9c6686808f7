//! A data directory with the drivers over it, and the calls that tests make.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pavior_driver::{
    ApplyRequest, CallContext, DestroyRequest, Driver, InvokeRequest, Lookup, MemorySink, Observation,
    ObserveRequest, Outcome, Prior, Push, PushRecorder, SecretString, Success, async_trait,
};
use pavior_drivers::{Drivers, DriversConfig, DriversKey, build, inherited};
use serde_json::{Value, json};

/// The pushes that were recorded; refuses them when it is told to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pushes {
    pub(crate) seen: Arc<Mutex<Vec<Push>>>,
    pub(crate) full: Arc<AtomicBool>,
}

#[async_trait]
impl PushRecorder for Pushes {
    async fn record(&self, push: Push) -> Result<(), String> {
        if self.full.load(Ordering::SeqCst) {
            return Err("full".to_owned());
        }
        self.seen.lock().unwrap().push(push);
        Ok(())
    }
}

pub(crate) struct World {
    pub(crate) drivers: Drivers,
    pub(crate) data: PathBuf,
    pub(crate) url: String,
    pub(crate) pushes: Pushes,
    _server: tokio::task::JoinHandle<()>,
    _directory: Option<tempfile::TempDir>,
}

pub(crate) fn shim() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_pavior-shim"))
}

pub(crate) fn config(data: &Path) -> DriversConfig {
    let environment = inherited(&|name| std::env::var(name).ok(), &[]);
    let key = DriversKey::derive(&[7; 32]);
    let mut config = DriversConfig::new(data.to_owned(), vec![shim().into()], environment, key);
    config.pipeline.grace = Duration::from_millis(500);
    config.process.grace = Duration::from_millis(500);
    config.process.health_timeout = Duration::from_secs(20);
    config
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut DriversConfig)) -> Self {
        let directory = tempfile::Builder::new().prefix("pavior-drivers-").tempdir().unwrap();
        let data = directory.path().canonicalize().unwrap().join("data");
        Self::over(data, directory, change).await
    }

    /// The process ends, and the next one comes up over its folder.
    pub(crate) async fn again(self, change: impl FnOnce(&mut DriversConfig)) -> Self {
        let url = self.url.clone();
        let (data, directory) = self.end();
        // Addresses that were given out stay.
        let change = |config: &mut DriversConfig| {
            config.git.public_url = url;
            change(config);
        };
        Self::over(data, directory, change).await
    }

    async fn over(
        data: PathBuf,
        directory: tempfile::TempDir,
        change: impl FnOnce(&mut DriversConfig),
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut config = config(&data);
        config.git.public_url = url.clone();
        change(&mut config);
        let url = config.git.public_url.clone();
        let drivers = build(&config).unwrap();
        let pushes = Pushes::default();
        let router = drivers.git_router(Arc::new(pushes.clone()));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { drivers, data, url, pushes, _server: server, _directory: Some(directory) }
    }

    /// The process ends; its folder stays.
    pub(crate) fn end(mut self) -> (PathBuf, tempfile::TempDir) {
        self._server.abort();
        (self.data, self._directory.take().unwrap())
    }

    pub(crate) fn driver(&self, id: &str) -> Arc<dyn Driver> {
        self.drivers.registry.get(id).unwrap()
    }

    pub(crate) async fn apply(
        &self,
        driver: &str,
        kind: &str,
        context: &CallContext,
        inputs: Value,
    ) -> Outcome {
        self.apply_over(driver, kind, context, inputs, None, &[]).await
    }

    pub(crate) async fn apply_over(
        &self,
        driver: &str,
        kind: &str,
        context: &CallContext,
        inputs: Value,
        prior: Option<&Success>,
        sensitive: &[&str],
    ) -> Outcome {
        let prior = prior.map(|success| Prior {
            identity: success.identity.clone(),
            outputs: success.outputs.clone(),
            ..Prior::default()
        });
        let sensitive = sensitive.iter().map(|text| SecretString::from(*text)).collect();
        let request = ApplyRequest {
            resource_type: kind.to_owned(),
            prior,
            inputs,
            sensitive,
            declaration_digest: String::new(),
        };
        self.driver(driver).apply(context, request, &MemorySink::new()).await
    }

    pub(crate) async fn destroy(
        &self,
        driver: &str,
        kind: &str,
        context: &CallContext,
        identity: &str,
    ) -> Outcome {
        let request = DestroyRequest {
            resource_type: kind.to_owned(),
            lookup: Lookup::Identity(identity.to_owned()),
            state: Value::Null,
        };
        self.driver(driver).destroy(context, request, &MemorySink::new()).await
    }

    pub(crate) async fn observe(
        &self,
        driver: &str,
        kind: &str,
        context: &CallContext,
        lookup: Lookup,
    ) -> Observation {
        let request = ObserveRequest { resource_type: kind.to_owned(), lookup };
        self.driver(driver).observe(context, request).await
    }

    /// A repository of organization `acme` with these files.
    pub(crate) async fn repository(&self, name: &str, files: &[(&str, &str)]) -> Success {
        let files: BTreeMap<&str, &str> = files.iter().copied().collect();
        let context =
            context(&format!("organizations/acme/projects/{name}/resources/repo"), &format!("{name}/1"));
        success(self.apply("git", "git-repository", &context, json!({ "files": files })).await)
    }

    /// The directory of a repository, which nobody is told.
    pub(crate) fn repository_path(&self, made: &Success) -> PathBuf {
        let name = made.outputs["name"].as_str().unwrap();
        self.data.join("repositories").join(format!("{name}.git"))
    }
}

/// Tells the `process` driver what is declared.
pub(crate) async fn reconcile(drivers: &Drivers, declared: &[&str]) {
    let declared = declared.iter().map(|identity| (*identity).to_owned()).collect();
    drivers.registry.get("process").unwrap().reconcile(&declared).await;
}

pub(crate) fn context(resource: &str, key: &str) -> CallContext {
    let mut context = CallContext::new("acme", resource, key, 1);
    context.operation = key.to_owned();
    context.step = key.to_owned();
    context
}

pub(crate) fn success(outcome: Outcome) -> Success {
    match outcome {
        Outcome::Succeeded(success) => success,
        other => panic!("did not succeed: {other:?}"),
    }
}

pub(crate) fn invoke(identity: &str, action: &str, arguments: Value, sensitive: &[&str]) -> InvokeRequest {
    InvokeRequest {
        resource_type: String::new(),
        identity: identity.to_owned(),
        action: action.to_owned(),
        arguments,
        sensitive: sensitive.iter().map(|text| SecretString::from(*text)).collect(),
        state: Value::Null,
    }
}

/// Polls until `check` gives a value.
pub(crate) async fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn alive(pid: u64) -> bool {
    // A zombie has ended.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    })
}

/// One HTTP GET; the body, or nothing when there is no answer.
pub(crate) async fn get(port: u64, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", u16::try_from(port).ok()?)).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}
