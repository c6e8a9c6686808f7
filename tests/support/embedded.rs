//! A whole system in this process, on SQLite in a folder of its own.

use std::path::Path;

use pavior::cli::apply::{self, Source};
use pavior::serve::{Config, DEV_OPERATOR, Role, System};
use pavior::starter::{self, Databases};

use crate::{Person, binary};

/// A whole system in this process.
#[derive(Debug)]
pub struct Embedded {
    system: System,
    data: tempfile::TempDir,
}

impl Embedded {
    /// Starts a system and loads the starter kit through its public API.
    pub async fn start() -> anyhow::Result<Self> {
        let embedded = Self::bare().await?;
        embedded.apply(&starter::documents(Databases::Sqlite)?).await?;
        Ok(embedded)
    }

    /// Starts a system with nothing in it.
    pub async fn bare() -> anyhow::Result<Self> {
        Self::with(|_| Ok(())).await
    }

    /// Starts a system with nothing in it, configured further by `change`.
    pub async fn with(change: impl FnOnce(&mut Config) -> anyhow::Result<()>) -> anyhow::Result<Self> {
        // Whoever comes first installs it; another test of this process may have.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let data = pavior_files::temporary_directory("pavior-e2e-")?;
        // This program is a test; the shim and the SQL client are the real binary's.
        let mut config = Config::embedded(data.path(), &binary()?)?;
        config.drivers.skeleton_roots = vec![crate::starter().join("skeletons").canonicalize()?];
        change(&mut config)?;
        let system = System::start(config, &Role::ALL).await?;
        Ok(Self { system, data })
    }

    /// Applies documents as the operator of the installation.
    pub async fn apply(&self, documents: &[Source]) -> anyhow::Result<()> {
        apply::apply(&*self.person(DEV_OPERATOR)?, documents, |_, _| {}).await?;
        Ok(())
    }

    /// A person of the starter kit.
    pub fn person(&self, name: &str) -> anyhow::Result<Person> {
        Person::new(&self.system.server(), self.data.path(), name, starter::ORGANIZATION)
    }

    /// A person of any organization.
    pub fn person_of(&self, name: &str, organization: &str) -> anyhow::Result<Person> {
        Person::new(&self.system.server(), self.data.path(), name, organization)
    }

    /// The running system.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// Where it keeps everything.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Stops the system and verifies its audit log.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop_keeping_data().await.map(drop)
    }

    /// Stops the system, verifies its audit log, and gives what it leaves.
    pub async fn stop_keeping_data(self) -> anyhow::Result<tempfile::TempDir> {
        self.system.stop().await?;
        for service in ["audit", "catalog", "policy", "provisioning"] {
            let mut log = pavior::serve::database_file(self.data.path(), service).into_os_string();
            log.push("-wal");
            let left = std::fs::metadata(&log).map_or(0, |log| log.len());
            anyhow::ensure!(
                left == 0,
                "the database of {service} was not closed: its log holds {left} bytes"
            );
        }
        verify(self.data.path()).await?;
        Ok(self.data)
    }
}

/// Verifies the audit log of a data folder.
pub(crate) async fn verify(data: &Path) -> anyhow::Result<()> {
    let path = pavior::serve::database_file(data, "audit");
    let report = pavior_audit_verifier::verify_database(&path.display().to_string(), None).await?;
    anyhow::ensure!(report.records() > 0, "the audit log is empty");
    Ok(())
}
