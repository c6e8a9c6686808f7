//! The drivers in the binary: `git`, `pipeline`, `process`, `sqlite-database` and `postgres-database`.
//!
//! Owns what they make (repositories, runs and artifacts, workloads, databases), all below one data directory, and
//! the shim that keeps work from outliving its supervisor. It must never: read the process environment or a clock of
//! the wall, let a path or a name of one organization reach another's, put a secret into outputs, logs or files in
//! the clear, or leave a process behind.
//!
//! Entry points: [`build`] gives [`Drivers`] with the registry, the router that serves repositories, and
//! [`Drivers::run`]; [`shim::main`] is what the configured shim command has to call; [`inherited`] picks the
//! environment that work may see.

mod child;
mod config;
mod database;
mod files;
mod git;
mod inputs;
mod keyring;
mod ledger;
mod pipeline;
mod process;
pub mod shim;

use std::sync::Arc;

use pavior_driver::{Driver, Registry};
use tokio_util::sync::CancellationToken;

pub use config::{DriversConfig, GitConfig, PipelineConfig, ProcessConfig, inherited};

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
    /// A configured value is wrong.
    #[error("{0}")]
    Config(String),
}

/// The drivers with their background parts.
pub struct Drivers {
    /// For the engine.
    pub registry: Registry,
    /// Serves repositories under `/git/{organization}/{repository}.git`; to be mounted at `git.public_url`.
    pub git_router: axum::Router,
    process: Arc<process::ProcessDriver>,
}

impl std::fmt::Debug for Drivers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drivers").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Drivers {
    /// Starts the workloads that were running when the process last ended, then waits for `cancel` and stops them;
    /// they stay recorded as wanted, so that the next start brings them back.
    pub async fn run(&self, cancel: CancellationToken) {
        self.resume().await;
        cancel.cancelled().await;
        self.stop().await;
    }

    /// Starts what should be running. Returns when every start has been tried.
    pub async fn resume(&self) {
        self.process.resume().await;
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
    files::private_directory(&config.data_dir).map_err(failed)?;
    let keyring =
        Arc::new(keyring::Keyring::open(&config.data_dir, config.secret_key.as_ref()).map_err(failed)?);
    let ledger =
        |driver: &str| ledger::Ledger::open(&config.data_dir, driver, Arc::clone(&keyring)).map_err(failed);
    let git = Arc::new(git::GitDriver::new(config, ledger("git")?).map_err(failed)?);
    let pipeline = pipeline::PipelineDriver::new(config, ledger("pipeline")?).map_err(failed)?;
    let process = Arc::new(process::ProcessDriver::new(config, ledger("process")?).map_err(failed)?);
    let sqlite = database::SqliteDriver::new(config, ledger("sqlite-database")?).map_err(failed)?;
    let mut drivers: Vec<Arc<dyn Driver>> =
        vec![Arc::clone(&git) as _, Arc::new(pipeline), Arc::clone(&process) as _, Arc::new(sqlite)];
    if let Some(url) = &config.postgres_url {
        drivers.push(Arc::new(database::PostgresDriver::new(url, ledger("postgres-database")?)?));
    }
    Ok(Drivers { registry: Registry::new(drivers), git_router: git::serve(&git), process })
}
