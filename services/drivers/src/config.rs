use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::keyring::DriversKey;

/// What the drivers are given. Nothing is read from the process environment here.
#[derive(Debug, Clone)]
pub struct DriversConfig {
    /// Where repositories, runs, artifacts, databases and workloads live. Must be absolute.
    pub data_dir: PathBuf,
    /// The command that runs the shim: the program and its first arguments, such as `pavior __shim`.
    pub shim: Vec<OsString>,
    /// What pipelines and workloads inherit: `PATH` and the toolchain's variables ([`inherited`] picks them).
    pub environment: BTreeMap<String, String>,
    /// The `git` driver.
    pub git: GitConfig,
    /// The `pipeline` driver.
    pub pipeline: PipelineConfig,
    /// The `process` driver.
    pub process: ProcessConfig,
    /// Address of a PostgreSQL server with the right to create roles and databases; without it there is no
    /// `postgres-database` driver.
    pub postgres_url: Option<SecretString>,
    /// For passwords and sealed state.
    pub key: DriversKey,
    /// How long what is only needed by late callers is kept: fences and answers of things that are gone.
    pub keep: Duration,
    /// Sees every change to the drivers' records before it is made.
    pub on_record: OnRecord,
}

/// Is told the path of a record before it is written or removed: a test breaks a call off there, as a kill would.
#[derive(Clone, Default)]
pub struct OnRecord(Option<Arc<Told>>);

/// Hears of a file of the ledger.
type Told = dyn Fn(&Path) + Send + Sync;

impl OnRecord {
    /// Tells it to this.
    pub fn new(told: impl Fn(&Path) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(told)))
    }

    pub(crate) fn tell(&self, record: &Path) {
        if let Some(told) = &self.0 {
            told(record);
        }
    }
}

impl std::fmt::Debug for OnRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OnRecord").field(&self.0.is_some()).finish()
    }
}

/// The `git` driver.
#[derive(Debug, Clone)]
pub struct GitConfig {
    /// Where the router is reachable, such as `http://127.0.0.1:7080`, without a slash at the end.
    pub public_url: String,
    /// Directories that hold skeletons; the first that has the name wins.
    pub skeleton_roots: Vec<PathBuf>,
    /// Most requests that are served at once.
    pub max_requests: usize,
    /// Longest that one request may take.
    pub request_timeout: Duration,
    /// Most bytes that a push may bring.
    pub max_push_bytes: u64,
    /// Most bytes of a repository; a push that would make it larger is refused.
    pub max_repository_bytes: u64,
}

/// The `pipeline` driver.
#[derive(Debug, Clone)]
pub struct PipelineConfig {
    /// For a step that names no timeout.
    pub step_timeout: Duration,
    /// The longest timeout a step may name.
    pub max_step_timeout: Duration,
    /// From interrupt to kill.
    pub grace: Duration,
    /// Most log bytes of a run, where each line counts 64 more than it has; the rest is dropped with a notice.
    pub max_log_bytes: usize,
}

/// The `process` driver.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// How long a start may take until the health check answers.
    pub health_timeout: Duration,
    /// From terminate to kill.
    pub grace: Duration,
    /// Size of a workload's log file; one older file of the same size is kept.
    pub max_log_bytes: u64,
    /// Wait before the first restart after a crash; doubles up to `max_backoff`.
    pub min_backoff: Duration,
    /// Longest wait between restarts.
    pub max_backoff: Duration,
}

impl DriversConfig {
    /// The documented defaults over these four.
    #[must_use]
    pub fn new(
        data_dir: PathBuf,
        shim: Vec<OsString>,
        environment: BTreeMap<String, String>,
        key: DriversKey,
    ) -> Self {
        Self {
            data_dir,
            shim,
            environment,
            git: GitConfig {
                public_url: String::new(),
                skeleton_roots: Vec::new(),
                max_requests: 32,
                request_timeout: Duration::from_secs(600),
                max_push_bytes: 256 * 1024 * 1024,
                max_repository_bytes: 2 * 1024 * 1024 * 1024,
            },
            pipeline: PipelineConfig {
                step_timeout: Duration::from_secs(600),
                max_step_timeout: Duration::from_secs(3600),
                grace: Duration::from_secs(5),
                max_log_bytes: 20 * 1024 * 1024,
            },
            process: ProcessConfig {
                health_timeout: Duration::from_secs(20),
                grace: Duration::from_secs(3),
                max_log_bytes: 1024 * 1024,
                min_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(30),
            },
            postgres_url: None,
            key,
            keep: Duration::from_secs(30 * 24 * 3600),
            on_record: OnRecord::default(),
        }
    }
}

/// Picks what pipelines and workloads may inherit: `PATH`, the names in `allowed`, and where cargo and rustup live
/// (their homes are found through `HOME`, which work does not share). `lookup` reads the process environment.
#[must_use]
pub fn inherited(lookup: &dyn Fn(&str) -> Option<String>, allowed: &[String]) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for name in ["PATH", "CARGO_HOME", "RUSTUP_HOME"].into_iter().chain(allowed.iter().map(String::as_str)) {
        if let Some(value) = lookup(name) {
            environment.insert(name.to_owned(), value);
        }
    }
    if let Some(home) = lookup("HOME").map(PathBuf::from) {
        for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let path = home.join(folder);
            if !environment.contains_key(name) && path.is_dir() {
                environment.insert(name.to_owned(), path.to_string_lossy().into_owned());
            }
        }
    }
    environment
}
