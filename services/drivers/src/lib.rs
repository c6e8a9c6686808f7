//! The drivers in the binary: `git`, `pipeline`, `process`, `sqlite-database` and `postgres-database`.
//!
//! Owns what they make (repositories, runs and artifacts, workloads, databases), all below one data directory, and
//! the shim that keeps work from outliving its supervisor. It must never: read the process environment or a clock of
//! the wall, let a path or a name of one organization reach another's, put a secret into outputs, logs or files in
//! the clear, or leave a process behind.
//!
//! Entry points: [`build`] gives [`Drivers`] with the registry, the router that serves repositories, and
//! [`Drivers::run`]; [`shim::main`] is what the configured shim command has to call; [`inherited`] picks the
//! environment that work may see; [`DriversKey`] is what passwords and sealed state come from.

mod child;
mod config;
mod content;
mod database;
mod folder;
mod git;
mod inputs;
mod keyring;
mod ledger;
mod pipeline;
mod place;
mod process;
pub mod shim;

use std::sync::Arc;

use pavior_driver::{Driver, PushRecorder, Registry};
use pavior_files as files;
use tokio_util::sync::CancellationToken;

pub use config::{DriversConfig, GitConfig, OnRecord, PipelineConfig, ProcessConfig, inherited};
pub use folder::key_fits;
pub use keyring::DriversKey;

/// Why the drivers cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error("the drivers' data directory `{path}` cannot be used")]
    Data {
        /// The directory.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process works on it.
    #[error(
        "the drivers' data directory `{path}` is in use by {holder}: stop that process, or give this one a folder of its own"
    )]
    InUse {
        /// The directory.
        path: std::path::PathBuf,
        /// Who has it.
        holder: String,
    },
    /// It was made with another key.
    #[error(
        "the drivers' data directory `{path}` was made with another sealing key than the one given: \
         restore the key that belongs to it, or give an empty folder"
    )]
    ForeignKey {
        /// The directory.
        path: std::path::PathBuf,
    },
    /// A configured value is wrong.
    #[error("{0}")]
    Config(String),
}

/// The drivers with their background parts.
pub struct Drivers {
    /// For the engine.
    pub registry: Registry,
    git: Arc<git::GitDriver>,
    process: Arc<process::ProcessDriver>,
}

impl std::fmt::Debug for Drivers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drivers").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Drivers {
    /// Serves repositories under `/git/{organization}/{repository}.git`; to be mounted at `git.public_url`. Each push
    /// is handed to `recorder` before it happens.
    pub fn git_router(&self, recorder: Arc<dyn PushRecorder>) -> axum::Router {
        git::serve(&self.git, recorder)
    }

    /// Waits for `cancel`, then stops the workloads; what should run is what the platform declares, which it says to
    /// the `process` driver with [`Driver::reconcile`] when it starts again.
    pub async fn run(&self, cancel: CancellationToken) {
        cancel.cancelled().await;
        self.stop().await;
    }

    /// Stops every workload without forgetting it.
    pub async fn stop(&self) {
        self.process.stop_all().await;
    }
}

/// Builds the drivers over a data directory that no other process uses.
///
/// # Errors
/// A data directory that cannot be used, or a configured value that is wrong.
pub fn build(config: &DriversConfig) -> Result<Drivers, Error> {
    if !config.data_dir.is_absolute() {
        return Err(Error::Config("the drivers' data directory must be absolute".to_owned()));
    }
    if config.shim.is_empty() {
        return Err(Error::Config("the drivers need a shim command".to_owned()));
    }
    let failed = |source| Error::Data { path: config.data_dir.clone(), source };
    let keyring = keyring::Keyring::new(&config.key).map_err(failed)?;
    let folder = Arc::new(folder::Folder::open(&config.data_dir, keyring)?);
    let ledger = |driver: &str| {
        ledger::Ledger::open(&folder, driver, config.keep, config.on_record.clone()).map_err(failed)
    };
    let git = Arc::new(git::GitDriver::new(config, ledger("git")?).map_err(failed)?);
    let pipeline = pipeline::PipelineDriver::new(config, ledger("pipeline")?).map_err(failed)?;
    let process = Arc::new(process::ProcessDriver::new(config, ledger("process")?).map_err(failed)?);
    let sqlite = database::SqliteDriver::new(config, ledger("sqlite-database")?).map_err(failed)?;
    let mut drivers: Vec<Arc<dyn Driver>> =
        vec![Arc::clone(&git) as _, Arc::new(pipeline), Arc::clone(&process) as _, Arc::new(sqlite)];
    if let Some(url) = &config.postgres_url {
        drivers.push(Arc::new(database::PostgresDriver::new(url, ledger("postgres-database")?)?));
    }
    Ok(Drivers { registry: Registry::new(drivers), git, process })
}
