//! `ci-pipeline`: runs of declared steps on a commit, in a private directory that is gone afterwards.

mod artifacts;
mod declared;
mod download;
mod report;
mod run;
mod workspace;

pub(crate) use artifacts::{ArtifactLocation, stored};

use artifacts::StoreLock;
use declared::{ARGUMENTS, Arguments, INPUTS, Inputs};
use run::Run;
use workspace::Workspaces;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pavior_core::digest::sha256_hex;
use pavior_driver::{
    ActionSchema, ApplyRequest, ArtifactContent, CallContext, DestroyRequest, Driver, DriverInfo,
    ExposeSecret, Failure, FailureCode, Found, Health, InvokeRequest, ListRequest, ListResponse, Observation,
    ObserveRequest, Outcome, PinRequest, PlanRequest, PlanResponse, ReadArtifactRequest, Redactor,
    SecretString, Secrets, Sink, Success, TypeSchema, Undo, ValidateRequest, Violation, diff,
};
use serde_json::{Value, json};

use crate::config::{DriversConfig, PipelineConfig};
use crate::files;
use crate::git::{Git, Repositories};
use crate::inputs::slug;
use crate::ledger::{Ledger, LedgerEntry, Rollback};
use crate::place::below;

const TYPE: &str = "ci-pipeline";

/// The driver.
pub(crate) struct PipelineDriver {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) git: Git,
    repositories: Repositories,
    /// The artifacts of all organizations.
    stores: PathBuf,
    pub(crate) shim: Vec<std::ffi::OsString>,
    inherited: BTreeMap<String, String>,
    pub(crate) config: PipelineConfig,
    store_lock: StoreLock,
    workspaces: Workspaces,
}

fn outputs_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "run": {"type": "string"},
            "commit": {"type": "string"},
            "artifacts": {"type": "array", "items": {"type": "object", "properties": {
                "name": {"type": "string"}, "path": {"type": "string"},
                "sha256": {"type": "string"}, "size": {"type": "integer"}
            }}},
            "steps": {"type": "array", "items": {"type": "object", "properties": {
                "name": {"type": "string"},
                "state": {"enum": ["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "SKIPPED"]},
                "exit_code": {"type": "integer"}, "error": {"type": "string"},
                "start_ms": {"type": "integer"}, "end_ms": {"type": "integer"}
            }}},
            "elapsed_ms": {"type": "integer"}
        }
    })
}

fn missing(identity: &str) -> Failure {
    Failure::new(FailureCode::NotFound, format!("pipeline `{identity}` does not exist"))
}

fn invalid(message: String) -> Failure {
    Failure::new(FailureCode::InvalidArgument, message)
}

impl PipelineDriver {
    pub(crate) fn new(config: &DriversConfig, ledger: Arc<Ledger>) -> std::io::Result<Self> {
        let patience = config.pipeline.grace + Duration::from_secs(1);
        Ok(Self {
            workspaces: Workspaces::open(config.data_dir.join("runs"), patience)?,
            ledger,
            git: Git::new(&config.environment, &config.shim),
            repositories: Repositories::new(config),
            stores: config.data_dir.join("artifacts"),
            shim: config.shim.clone(),
            inherited: config.environment.clone(),
            config: config.pipeline.clone(),
            store_lock: StoreLock::default(),
        })
    }

    /// Where the artifacts of a pipeline stand, by digest.
    fn store(&self, organization: &str, identity: &str) -> Result<PathBuf, Failure> {
        below(&self.stores, &[organization, identity], "").ok_or_else(|| missing(identity))
    }

    /// The commit that a revision of the pipeline's repository is now.
    async fn commit(&self, repository: &Path, arguments: &Arguments) -> Result<String, Failure> {
        let revision = arguments.commit.as_deref().or(arguments.reference.as_deref()).unwrap_or("HEAD");
        let commit = self.git.resolve(repository, revision).await?;
        commit.ok_or_else(|| invalid(format!("`{revision}` is not a commit of the repository")))
    }

    /// The inputs' repository, when it is one of the caller's organization.
    fn repository(&self, organization: &str, inputs: &Inputs) -> Result<PathBuf, Failure> {
        let path = self.repositories.local(organization, &self.ledger.folder().here(&inputs.repository));
        path.ok_or_else(|| Failure::new(FailureCode::NotFound, "the pipeline's repository does not exist"))
    }

    async fn try_pin(&self, request: PinRequest) -> Result<Value, Failure> {
        let Some((identity, _)) = request.action.as_ref().filter(|(_, action)| action == "run") else {
            return Ok(json!({}));
        };
        let arguments = ARGUMENTS.read(&request.inputs)?;
        let entry = self.ledger.owner(identity)?.filter(|entry| entry.organization == request.organization);
        let entry = entry.ok_or_else(|| missing(identity))?;
        let inputs = INPUTS.read(&entry.data)?;
        let repository = self.repository(&request.organization, &inputs)?;
        Ok(json!({ "commit": self.commit(&repository, &arguments).await? }))
    }

    fn success(entry: &LedgerEntry) -> Success {
        let outputs = json!({ "id": entry.identity, "repository": entry.data.get("repository") });
        Success { identity: entry.identity.clone(), outputs, secrets: Secrets::new(), state: json!({}) }
    }

    async fn try_apply(&self, context: &CallContext, request: ApplyRequest) -> Result<Success, Failure> {
        let _lock = self.ledger.lock(context).await?;
        let before = self.ledger.replay(context, &request.inputs)?;
        let inputs = INPUTS.read(&request.inputs)?;
        let text = request.inputs.to_string();
        if request.sensitive.iter().any(|secret| text.contains(secret.expose_secret())) {
            return Err(invalid("a pipeline holds no secrets; give them to the run".to_owned()));
        }
        if self.repository(&context.organization, &inputs).is_err() {
            return Err(invalid(format!("`{}` is not a repository of this organization", inputs.repository)));
        }
        let prior = request
            .prior
            .as_ref()
            .map(|prior| prior.identity.clone())
            .filter(|identity| !identity.is_empty());
        let identity = before.map(|used| used.identity).or(prior).unwrap_or_else(|| {
            let id = context.resource.rsplit('/').next().unwrap_or_default();
            format!("{}-{}", slug(id, 40), &sha256_hex(context.idempotency_key.as_bytes())[..12])
        });
        self.store(&context.organization, &identity)?;
        if self.ledger.owner(&identity)?.is_some_and(|owner| owner.organization != context.organization) {
            return Err(missing(&identity));
        }
        let mut intent = self.ledger.intend(context, TYPE, &identity, &request)?;
        intent.entry.data = request.inputs;
        match self.ledger.complete(&mut intent) {
            Ok(()) => Ok(Self::success(&intent.entry)),
            Err(failure) => Err(self.ledger.roll_back(intent, failure, self).await),
        }
    }

    async fn try_invoke(
        &self,
        context: &CallContext,
        request: InvokeRequest,
        sink: &dyn Sink,
    ) -> Result<Success, Failure> {
        if request.action != "run" {
            let message = format!("`{TYPE}` has no action `{}`", request.action);
            return Err(Failure::new(FailureCode::Unsupported, message));
        }
        let _lock = self.ledger.lock(context).await?;
        let arguments = ARGUMENTS.read(&request.arguments)?;
        let entry = self.ledger.entry(context, &request.identity)?;
        let entry = entry.ok_or_else(|| missing(&request.identity))?;
        if let Some(result) = self.ledger.replay(context, &request.arguments)?.and_then(|used| used.result) {
            return Ok(Success { outputs: result, ..Self::success(&entry) });
        }
        self.ledger.record_key(context, &entry.identity, &request.arguments, None)?;
        let run = self.prepare(context, &entry, arguments, &request.sensitive).await?;
        let outputs = self.run(context, &run, sink).await?;
        self.ledger.record_key(context, &entry.identity, &request.arguments, Some(outputs.clone()))?;
        Ok(Success { outputs, ..Self::success(&entry) })
    }

    async fn prepare(
        &self,
        context: &CallContext,
        entry: &LedgerEntry,
        arguments: Arguments,
        sensitive: &[SecretString],
    ) -> Result<Run, Failure> {
        let inputs = INPUTS.read(&entry.data)?;
        let repository = self.repository(&context.organization, &inputs)?;
        let commit = self.commit(&repository, &arguments).await?;
        let steps = arguments.steps.unwrap_or(inputs.steps);
        if steps.is_empty() {
            return Err(invalid("the run has no steps".to_owned()));
        }
        let id = sha256_hex(context.idempotency_key.as_bytes())[..16].to_owned();
        let workspace = self.workspaces.path(&id);
        let mut environment = self.inherited.clone();
        environment.extend(inputs.environment.0);
        environment.extend(arguments.environment.0);
        for (name, value) in &arguments.parameters {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let name: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            environment.insert(format!("PARAMETER_{}", name.to_ascii_uppercase()), value);
        }
        environment.extend(arguments.secrets.0.clone());
        for value in environment.values_mut() {
            *value = self.ledger.folder().here(value);
        }
        let fixed = [
            ("HOME", workspace.join("home").to_string_lossy().into_owned()),
            ("TMPDIR", workspace.join("tmp").to_string_lossy().into_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("CI", "true".to_owned()),
            ("PAVIOR_RUN", id.clone()),
            ("PAVIOR_COMMIT", commit.clone()),
            ("PAVIOR_ORGANIZATION", context.organization.clone()),
        ];
        environment.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
        let mut secrets = sensitive.to_vec();
        secrets.extend(arguments.secrets.0.into_values().map(SecretString::from));
        Ok(Run {
            store: self.store(&context.organization, &entry.identity)?,
            store_lock: self.store_lock.clone(),
            id,
            repository,
            commit,
            steps,
            artifacts: arguments.artifacts.unwrap_or(inputs.artifacts),
            environment,
            redactor: Redactor::new(&secrets),
        })
    }

    async fn try_observe(
        &self,
        context: &CallContext,
        request: ObserveRequest,
    ) -> Result<Observation, Failure> {
        let Some(found) = self.ledger.find(context, &request.lookup)? else { return Ok(Observation::Absent) };
        let Some(entry) = self.ledger.entry(context, &found.identity)? else {
            return Ok(Observation::Absent);
        };
        let is = Found::from(Self::success(&entry));
        if let Some(outputs) = found.result {
            return Ok(Observation::Found(Found { outputs, ..is }));
        }
        // A run that did not end left nothing: its processes died with their supervisor.
        let seen = if entry.ready {
            Observation::Found(is)
        } else {
            Observation::Partial {
                identity: Some(is.identity),
                state: is.state,
                message: "an apply broke off".to_owned(),
            }
        };
        Ok(entry.seen(&request.lookup, seen))
    }

    async fn try_destroy(&self, context: &CallContext, request: DestroyRequest) -> Result<Success, Failure> {
        let _lock = self.ledger.lock(context).await?;
        let found = self.ledger.find(context, &request.lookup)?;
        let entry = found.map(|found| self.ledger.entry(context, &found.identity)).transpose()?.flatten();
        if let Some(entry) = entry {
            self.remove(&entry).await?;
            self.ledger.forget(&entry)?;
        }
        Ok(Success::default())
    }
}

#[async_trait]
impl Rollback for PipelineDriver {
    async fn remove(&self, entry: &LedgerEntry) -> Result<(), Failure> {
        // What was deployed from its artifacts has copies of its own.
        let kept = self.store(&entry.organization, &entry.identity)?;
        let removed = tokio::task::spawn_blocking(move || files::remove_tree(&kept)).await;
        removed.map_err(std::io::Error::other).flatten().map_err(|error| {
            tracing::error!(error = %error, "artifacts cannot be removed");
            Failure::new(FailureCode::Internal, "the pipeline's artifacts cannot be removed")
        })
    }

    async fn restore(&self, _before: &LedgerEntry) -> Result<(), Failure> {
        Ok(())
    }
}

#[async_trait]
impl Driver for PipelineDriver {
    fn info(&self) -> DriverInfo {
        let pipeline = TypeSchema {
            id: TYPE.to_owned(),
            inputs: INPUTS.schema(),
            outputs: json!({"type": "object", "properties": {
                "id": {"type": "string"}, "repository": {"type": "string"}
            }}),
            secret_outputs: Vec::new(),
            immutable: Vec::new(),
            actions: vec![ActionSchema {
                name: "run".to_owned(),
                description: "Runs the steps on a commit and keeps the artifacts.".to_owned(),
                arguments: ARGUMENTS.schema(),
                outputs: outputs_schema(),
            }],
            undo: Undo::Destroy,
            secret_inputs: Vec::new(),
        };
        DriverInfo {
            id: "pipeline".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            types: vec![pipeline],
        }
    }

    async fn validate(&self, request: ValidateRequest) -> Result<Value, Vec<Violation>> {
        INPUTS.validate(&request)
    }

    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure> {
        Ok(diff(request.prior.as_ref().map(|prior| &prior.inputs), request.desired.as_ref(), &[]))
    }

    async fn pin(&self, request: PinRequest) -> Result<Value, Failure> {
        self.try_pin(request).await
    }

    async fn apply(&self, context: &CallContext, request: ApplyRequest, _sink: &dyn Sink) -> Outcome {
        self.try_apply(context, request).await.into()
    }

    async fn observe(&self, context: &CallContext, request: ObserveRequest) -> Observation {
        let seen = self.try_observe(context, request).await;
        seen.unwrap_or_else(|failure| Observation::Indeterminate { message: failure.message })
    }

    async fn destroy(&self, context: &CallContext, request: DestroyRequest, _sink: &dyn Sink) -> Outcome {
        self.try_destroy(context, request).await.into()
    }

    async fn invoke(&self, context: &CallContext, request: InvokeRequest, sink: &dyn Sink) -> Outcome {
        self.try_invoke(context, request, sink).await.into()
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Failure> {
        self.ledger.list(request, |_| true).await
    }

    async fn reconcile(&self, _declared: &BTreeSet<String>) {
        self.workspaces.clear().await;
        self.ledger.sweep_old().await;
    }

    async fn keep_artifacts(&self, kept: &BTreeSet<String>) {
        self.store_lock.keep(self.stores.clone(), kept.clone()).await;
    }

    async fn read_artifact(&self, request: ReadArtifactRequest) -> Result<ArtifactContent, Failure> {
        let ReadArtifactRequest { organization, digest } = request;
        let missing = || Failure::new(FailureCode::NotFound, format!("artifact `{digest}` does not exist"));
        let stores = below(&self.stores, &[&organization], "").ok_or_else(missing)?;
        let found = tokio::task::spawn_blocking(move || artifacts::find_by_digest(&stores, digest)).await;
        let found = found.map_err(std::io::Error::other).flatten().map_err(|error| {
            tracing::error!(%error, "artifacts cannot be looked through");
            Failure::new(FailureCode::Internal, "the artifacts cannot be read")
        })?;
        Ok(download::open(found.ok_or_else(missing)?))
    }

    async fn health(&self) -> Health {
        match self.git.version().await {
            Ok(_) => self.ledger.health(),
            Err(failure) => Health::Down(failure.message),
        }
    }
}
