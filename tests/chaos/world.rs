//! The system that is hurt: the real binary with every service in one process, on either database.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use pavior::cli::apply::{self, Source};
use pavior::serve::DEV_OPERATOR;
use pavior::starter::Databases;
use pavior_testkit::db;
use pavior_tests::{Person, Processes};
use sqlx::Connection as _;

use crate::faults::Postgres;

/// The name of the one process.
pub(crate) const ALL: &str = "all";
const SERVICES: [&str; 4] = ["audit", "catalog", "policy", "provisioning"];

/// A golden path whose environments cost next to nothing: two databases, no repository, no pipeline.
const GOLDEN_PATH: &str = "
template: chaos
version: 1.0.0
title: Chaos
description: Two databases in each environment.
parameters: { type: object, additionalProperties: false, properties: {} }
project:
  entry:
    type: catalog-entity
    inputs: { kind: component, id: \"${{ project.id }}\", spec: { type: service, lifecycle: production } }
environments:
  box:
    resources:
      first: { type: sql-database, inputs: { size: small } }
      second: { type: sql-database, inputs: { size: small } }
";

/// Which database keeps the services' state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    Sqlite,
    Postgres,
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        })
    }
}

/// A running system with the starter kit and the golden path `chaos`.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) processes: Processes,
    urls: Vec<(&'static str, String)>,
    /// Removed when the world ends.
    _databases: Vec<db::TestDb>,
}

impl World {
    /// Starts a system on `backing`.
    pub(crate) async fn start(backing: Backing) -> Result<Self> {
        Self::prepared(Processes::new(&[])?, backing).await
    }

    /// Starts a system with processes that are set up already.
    pub(crate) async fn prepared(processes: Processes, backing: Backing) -> Result<Self> {
        let mut databases = Vec::new();
        let mut urls = Vec::new();
        if backing == Backing::Postgres {
            for role in SERVICES {
                let database = db::postgres().await.context("no PostgreSQL")?;
                urls.push((role, database.url.clone()));
                databases.push(database);
            }
        }
        Self::with(processes, urls, databases).await
    }

    /// Starts a system on a PostgreSQL server of its own.
    pub(crate) async fn at_server(server: &Postgres) -> Result<Self> {
        let mut urls = Vec::new();
        let mut admin = sqlx::PgConnection::connect(&server.url("postgres")).await?;
        for role in SERVICES {
            sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {role}"))).execute(&mut admin).await?;
            urls.push((role, server.url(role)));
        }
        Self::with(Processes::new(&[])?, urls, Vec::new()).await
    }

    async fn with(
        processes: Processes,
        urls: Vec<(&'static str, String)>,
        databases: Vec<db::TestDb>,
    ) -> Result<Self> {
        let mut world = Self { processes, urls, _databases: databases };
        world.up()?;
        world.processes.load_starter_kit(Databases::Sqlite).await?;
        let golden_path = Source { origin: "chaos".to_owned(), text: GOLDEN_PATH.to_owned() };
        apply::apply(&*world.person(DEV_OPERATOR)?, &[golden_path], |_, _| {}).await?;
        Ok(world)
    }

    /// The settings by which a process finds the databases.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        self.urls.iter().map(|(role, url)| (format!("{role}.database.url"), url.clone())).collect()
    }

    /// Starts the process.
    pub(crate) fn up(&mut self) -> Result<()> {
        let settings = self.settings();
        let settings: Vec<(&str, String)> = settings.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        self.processes.start(ALL, &["--all"], &settings)
    }

    /// Kills the process and starts it anew.
    pub(crate) fn kill_and_up(&mut self) -> Result<()> {
        self.processes.kill(ALL)?;
        self.up()
    }

    /// Somebody at the gateway as it is now.
    pub(crate) fn person(&self, name: &str) -> Result<Person> {
        self.processes.person(name)
    }

    /// Stops the process in order and verifies the audit log.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.processes.stop(ALL)?;
        match self.urls.iter().find(|(role, _)| *role == "audit") {
            Some((_, audit)) => {
                let report = pavior_audit_verifier::verify_database(audit, None).await?;
                ensure!(report.records() > 0, "the audit log is empty");
                Ok(())
            }
            None => self.processes.verify_audit_log().await,
        }
    }

    /// The files of databases that drivers have made.
    pub(crate) fn database_files(&self) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        collect(&pavior::serve::drivers_directory(self.processes.data()).join("databases"), &mut found);
        found
    }
}

fn collect(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "db" || e == "sqlite") {
            found.push(path);
        }
    }
}
