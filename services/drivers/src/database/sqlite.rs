//! A SQLite file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use pavior_core::digest::sha256_hex;
use pavior_driver::{
    ApplyRequest, CallContext, DestroyRequest, Driver, DriverInfo, Failure, FailureCode, Found, Health,
    ListRequest, ListResponse, Observation, ObserveRequest, Outcome, PlanRequest, PlanResponse, Secrets,
    Sink, Success, TypeSchema, Undo, ValidateRequest, Violation, diff,
};
use sea_orm::{ConnectionTrait, Database};
use serde_json::{Value, json};

use super::{INPUTS, TYPE};
use crate::config::DriversConfig;
use crate::files;
use crate::inputs::slug;
use crate::ledger::{Ledger, LedgerEntry, Rollback};
use crate::place::below;

/// The driver.
pub(crate) struct SqliteDriver {
    ledger: Arc<Ledger>,
    root: PathBuf,
}

fn internal<E: std::fmt::Display>(message: &'static str) -> impl Fn(E) -> Failure {
    move |error| {
        tracing::error!(error = %error, message);
        Failure::new(FailureCode::Internal, message)
    }
}

/// Where the database of an organization is: its identity is the organization's name, and one below it.
fn file(root: &Path, organization: &str, identity: &str) -> Result<PathBuf, Failure> {
    let own = identity.strip_prefix(organization).and_then(|name| name.strip_prefix('/'));
    own.and_then(|name| below(root, &[organization, name], ".db"))
        .ok_or_else(|| Failure::new(FailureCode::NotFound, format!("database `{identity}` does not exist")))
}

impl SqliteDriver {
    pub(crate) fn new(config: &DriversConfig, ledger: Arc<Ledger>) -> std::io::Result<Self> {
        let root = config.data_dir.join("databases");
        files::private_directory(&root)?;
        // Nobody else works in here: what is half-made was left by a process that was killed.
        for organization in std::fs::read_dir(&root)?.filter_map(Result::ok).filter(|e| e.path().is_dir()) {
            files::sweep(&organization.path(), ".tmp")?;
        }
        Ok(Self { ledger, root })
    }

    fn path(&self, entry: &LedgerEntry) -> Result<PathBuf, Failure> {
        file(&self.root, &entry.organization, &entry.identity)
    }

    fn success(entry: &LedgerEntry, path: &Path) -> Success {
        let outputs = json!({ "engine": "sqlite", "database": entry.identity });
        let secrets = Secrets::new().with("url", format!("sqlite://{}?mode=rw", path.display()));
        Success { identity: entry.identity.clone(), outputs, secrets, state: json!({}) }
    }

    async fn try_apply(&self, context: &CallContext, request: ApplyRequest) -> Result<Success, Failure> {
        let _lock = self.ledger.lock(context).await?;
        let before = self.ledger.replay(context, &request.inputs)?;
        let inputs = INPUTS.read(&request.inputs)?;
        let prior = request
            .prior
            .as_ref()
            .map(|prior| prior.identity.clone())
            .filter(|identity| !identity.is_empty());
        let identity = before.map(|used| used.identity).or(prior).unwrap_or_else(|| {
            let id = context.resource.rsplit('/').next().unwrap_or_default();
            let name = slug(inputs.name.as_deref().unwrap_or(id), 40);
            let digest = sha256_hex(format!("{}\0{}", context.resource, context.idempotency_key).as_bytes());
            format!("{}/{name}-{}", context.organization, &digest[..12])
        });
        let path = file(&self.root, &context.organization, &identity)?;
        let mut intent = self.ledger.intend(context, TYPE, &identity, &request)?;
        let made = if path.is_file() { Ok(()) } else { self.create(&path).await };
        match made.and_then(|()| self.ledger.complete(&mut intent)) {
            Ok(()) => Ok(Self::success(&intent.entry, &path)),
            Err(failure) => Err(self.ledger.roll_back(intent, failure, self).await),
        }
    }

    /// A valid empty database in write-ahead mode, made beside its place and moved there whole.
    async fn create(&self, path: &std::path::Path) -> Result<(), Failure> {
        let failed = "the database cannot be made";
        let directory = path.parent().unwrap_or(&self.root).to_owned();
        files::private_directory(&directory).map_err(internal(failed))?;
        let workshop = tempfile::tempdir_in(&directory).map_err(internal(failed))?;
        let fresh = workshop.path().join("new.db");
        let url = format!("sqlite://{}?mode=rwc", fresh.display());
        let connection = Database::connect(url).await.map_err(internal(failed))?;
        for statement in ["PRAGMA journal_mode = WAL", "PRAGMA user_version = 0", "VACUUM"] {
            connection.execute_unprepared(statement).await.map_err(internal(failed))?;
        }
        connection.close().await.map_err(internal(failed))?;
        std::fs::rename(&fresh, path).map_err(internal(failed))?;
        files::sync_directory(&directory).map_err(internal(failed))
    }

    async fn try_destroy(&self, context: &CallContext, request: DestroyRequest) -> Result<Success, Failure> {
        let _lock = self.ledger.lock(context).await?;
        let Some(found) = self.ledger.find(context, &request.lookup)? else { return Ok(Success::default()) };
        let Some(entry) = self.ledger.entry(context, &found.identity)? else { return Ok(Success::default()) };
        self.remove(&entry).await?;
        self.ledger.forget(&entry)?;
        Ok(Success::default())
    }

    fn try_observe(&self, context: &CallContext, request: &ObserveRequest) -> Result<Observation, Failure> {
        let Some(found) = self.ledger.find(context, &request.lookup)? else { return Ok(Observation::Absent) };
        let Some(entry) = self.ledger.entry(context, &found.identity)? else {
            return Ok(Observation::Absent);
        };
        let path = self.path(&entry)?;
        let seen = match (path.is_file(), entry.ready) {
            (true, _) => Observation::Found(Found::from(Self::success(&entry, &path))),
            (false, false) => Observation::Absent,
            (false, true) => Observation::Partial {
                identity: Some(entry.identity.clone()),
                state: Value::Null,
                message: "the database's file is gone".to_owned(),
            },
        };
        Ok(entry.seen(&request.lookup, seen))
    }
}

#[async_trait]
impl Rollback for SqliteDriver {
    async fn remove(&self, entry: &LedgerEntry) -> Result<(), Failure> {
        let path = self.path(entry)?;
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut file = path.clone().into_os_string();
            file.push(suffix);
            files::remove(file.as_ref()).map_err(internal("the database cannot be removed"))?;
        }
        Ok(())
    }

    async fn restore(&self, _before: &LedgerEntry) -> Result<(), Failure> {
        Ok(())
    }
}

#[async_trait]
impl Driver for SqliteDriver {
    fn info(&self) -> DriverInfo {
        let database = TypeSchema {
            id: TYPE.to_owned(),
            inputs: INPUTS.schema(),
            outputs: json!({"type": "object", "properties": {
                "engine": {"const": "sqlite"}, "database": {"type": "string"}
            }}),
            secret_outputs: vec!["url".to_owned()],
            immutable: vec!["/name".to_owned()],
            actions: Vec::new(),
            undo: Undo::Destroy,
            secret_inputs: Vec::new(),
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        DriverInfo { id: "sqlite-database".to_owned(), version, types: vec![database] }
    }

    async fn validate(&self, request: ValidateRequest) -> Result<Value, Vec<Violation>> {
        INPUTS.validate(&request)
    }

    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure> {
        let immutable = ["/name".to_owned()];
        Ok(diff(request.prior.as_ref().map(|prior| &prior.inputs), request.desired.as_ref(), &immutable))
    }

    async fn apply(&self, context: &CallContext, request: ApplyRequest, _sink: &dyn Sink) -> Outcome {
        self.try_apply(context, request).await.into()
    }

    async fn observe(&self, context: &CallContext, request: ObserveRequest) -> Observation {
        let seen = self.try_observe(context, &request);
        seen.unwrap_or_else(|failure| Observation::Indeterminate { message: failure.message })
    }

    async fn destroy(&self, context: &CallContext, request: DestroyRequest, _sink: &dyn Sink) -> Outcome {
        self.try_destroy(context, request).await.into()
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Failure> {
        let root = self.root.clone();
        let exists = move |entry: &LedgerEntry| {
            file(&root, &entry.organization, &entry.identity).is_ok_and(|path| path.is_file())
        };
        self.ledger.list(request, exists).await
    }

    async fn reconcile(&self, _declared: &BTreeSet<String>) {
        self.ledger.sweep_old().await;
    }

    async fn health(&self) -> Health {
        if self.root.is_dir() {
            self.ledger.health()
        } else {
            Health::Down("the data directory is gone".to_owned())
        }
    }
}
