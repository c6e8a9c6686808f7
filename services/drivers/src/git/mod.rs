//! `git-repository`: a bare repository made from a skeleton, served over smart HTTP.

mod account;
mod answer;
mod build;
mod http;
mod push;
mod repositories;
mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use pavior_core::digest::{Digest, sha256_hex};
use pavior_driver::{
    ApplyRequest, CallContext, DestroyRequest, Driver, DriverInfo, ExposeSecret, Failure, FailureCode, Found,
    Health, ListRequest, ListResponse, Observation, ObserveRequest, Outcome, Partial, PinRequest,
    PlanRequest, PlanResponse, Progress, PushRecorder, SecretString, Secrets, Sink, Success, TypeSchema,
    Undo, ValidateRequest, Violation, diff,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::{DriversConfig, GitConfig};
use crate::files;
use crate::inputs::{Declared, NAME, slug};
use crate::ledger::{Ledger, LedgerEntry, Rollback};
pub(crate) use build::Git;
pub(crate) use http::router;
pub(crate) use repositories::Repositories;
use repositories::{borne, identity, mark, name_in, own_name};

const TYPE: &str = "git-repository";
/// The setting of a repository that says which password opens it.
const TOKEN: &str = "pavior.tokensha256";

static INPUTS: Declared<Inputs> = Declared::new();

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Inputs {
    /// Repository name; the project's id when it is left out.
    #[schemars(regex(pattern = NAME))]
    name: Option<String>,
    /// Skeleton to render, below the configured roots.
    #[schemars(length(min = 1, max = 200))]
    skeleton: Option<String>,
    /// What the skeleton must be; a plan fills it in.
    #[schemars(with = "Option<String>", regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    skeleton_digest: Option<Digest>,
    /// Files by path, rendered like a skeleton and laid over it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<String, String>,
    /// What the skeleton reads as `parameters`.
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(default = "main_branch")]
    #[schemars(regex(pattern = "^[a-z][a-z0-9-]{0,62}$"))]
    default_branch: String,
}

fn main_branch() -> String {
    "main".to_owned()
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Data {
    name: String,
    default_branch: String,
}

/// The driver.
pub(crate) struct GitDriver {
    ledger: Arc<Ledger>,
    git: Git,
    repositories: Repositories,
    config: GitConfig,
    shim: Vec<std::ffi::OsString>,
}

impl GitDriver {
    pub(crate) fn new(config: &DriversConfig, ledger: Arc<Ledger>) -> std::io::Result<Self> {
        let repositories = Repositories::new(config);
        let building = repositories.root.join(".building");
        files::private_directory(&building)?;
        // Nobody else works in here: what is half-made was left by a process that was killed.
        files::sweep(&building, "")?;
        for repository in repositories.all()? {
            room::sweep(&repository)?;
        }
        let git = Git::new(&config.environment, &config.shim);
        Ok(Self { ledger, git, repositories, config: config.git.clone(), shim: config.shim.clone() })
    }

    fn name(context: &CallContext, inputs: &Inputs) -> String {
        let given = inputs.name.clone().or_else(|| context.segment("projects").map(str::to_owned));
        given.unwrap_or_else(|| slug(context.resource.rsplit('/').next().unwrap_or_default(), 60))
    }

    fn password(&self, entry: &LedgerEntry) -> SecretString {
        self.ledger.keyring().password("git", &[&entry.identity, &entry.created_by])
    }

    /// What the repository knows of its password.
    fn token(&self, entry: &LedgerEntry) -> String {
        sha256_hex(self.password(entry).expose_secret().as_bytes())
    }

    fn secrets(&self, entry: &LedgerEntry) -> Secrets {
        Secrets::new().with("password", self.password(entry))
    }

    async fn success(&self, entry: &LedgerEntry) -> Result<Success, Failure> {
        let data: Data = serde_json::from_value(entry.data.clone())
            .map_err(|_| Failure::new(FailureCode::Internal, "the driver's state is damaged"))?;
        let path = self.repositories.path(&entry.organization, &data.name)?;
        let commit = self.git.head(&path, &data.default_branch).await?;
        let outputs = json!({
            "name": format!("{}/{}", entry.organization, data.name),
            "url": self.repositories.url(&entry.organization, &data.name),
            "username": http::USER,
            "default_branch": data.default_branch,
            "commit": commit,
        });
        let state = json!({ "name": data.name });
        Ok(Success { identity: entry.identity.clone(), outputs, secrets: self.secrets(entry), state })
    }

    async fn try_apply(
        &self,
        context: &CallContext,
        request: ApplyRequest,
        sink: &dyn Sink,
    ) -> Result<Success, Failure> {
        let _lock = self.ledger.lock(context).await?;
        let used = self.ledger.replay(context, &request.inputs)?.map(|used| used.identity);
        let inputs = INPUTS.read(&request.inputs)?;
        let name = Self::name(context, &inputs);
        let prior = request.prior.as_ref().map(|prior| prior.identity.clone());
        let prior = prior.filter(|identity| !identity.is_empty());
        let identity = used
            .or(prior)
            .unwrap_or_else(|| identity(&context.organization, &name, &context.idempotency_key));
        if name_in(&identity, &context.organization) != Some(&*name) {
            let message = format!("repository `{identity}` cannot become `{name}` in place");
            return Err(Failure::new(FailureCode::Unsupported, message));
        }
        let path = self.repositories.path(&context.organization, &name)?;
        // Two resources may want the same name.
        let _name = self.ledger.hold(context, &path.to_string_lossy()).await?;
        let existed = path.is_dir();
        self.may_take(context, &request, &identity, existed.then_some(&*path)).await?;
        let mut intent = self.ledger.intend(context, TYPE, &identity, &request)?;
        intent.entry.data = json!(Data { name: name.clone(), default_branch: inputs.default_branch.clone() });
        let make = async {
            if existed {
                self.git.configure(&path, TOKEN, &self.token(&intent.entry)).await?;
            }
            if !existed || !intent.repeats() {
                sink.progress(Progress::message(format!("rendering repository `{name}`"))).await;
                let files = self.render(context, &inputs, &name).await?;
                self.put(context, &intent.entry, &path, &inputs, files).await?;
            }
            Ok(())
        };
        match make.await.and_then(|()| self.ledger.complete(&mut intent)) {
            Ok(()) => self.success(&intent.entry).await,
            Err(failure) => Err(self.ledger.roll_back(intent, failure, self).await),
        }
    }

    /// Refuses a repository that is not this call's to make or change: of another resource, of nobody whom the platform
    /// knows, or of a resource of the same name that is not recorded any more, whose code is perhaps somebody else's.
    async fn may_take(
        &self,
        context: &CallContext,
        request: &ApplyRequest,
        identity: &str,
        path: Option<&Path>,
    ) -> Result<(), Failure> {
        let conflict = |message: String| Err(Failure::new(FailureCode::Conflict, message));
        let name = identity.split_once('@').map_or(identity, |(name, _)| name);
        let owner = self.ledger.owner(identity)?;
        let borne = path.map(|path| borne(path, &context.organization)).transpose();
        let borne = borne.map_err(build::io("read"))?.unwrap_or_else(|| identity.to_owned());
        let of_another = |owner: &LedgerEntry| owner.resource != context.resource;
        if [&owner, &self.ledger.owner(&borne)?].into_iter().flatten().any(of_another) {
            return conflict(format!(
                "repository `{name}` belongs to another resource; choose another `name`"
            ));
        }
        let Some(path) = path else { return Ok(()) };
        let made_for = self.git.config(path, "pavior.resource").await?;
        if made_for.as_deref() != Some(context.resource.as_str()) {
            return conflict(format!(
                "a repository `{name}` that the platform did not make stands in the way"
            ));
        }
        let begun = owner.is_some_and(|owner| owner.has_key(&context.idempotency_key));
        if borne != identity || request.prior.is_none() && !begun {
            return conflict(format!(
                "a repository `{name}` (`{borne}`) is left of a resource that is not recorded any more: save what is in it \
                 and remove it, or choose another `name`"
            ));
        }
        Ok(())
    }

    /// Makes the repository, or offers it what was rendered anew.
    async fn put(
        &self,
        context: &CallContext,
        entry: &LedgerEntry,
        path: &Path,
        inputs: &Inputs,
        files: Vec<pavior_expr::SkeletonFile>,
    ) -> Result<(), Failure> {
        if !path.is_dir() {
            return self.create(context, entry, path, inputs, files).await;
        }
        let upgraded = self.git.upgrade(path, &inputs.default_branch, files, &context.idempotency_key).await;
        // Some of its references may have been moved.
        let partial = || Partial { identity: Some(entry.identity.clone()), state: Value::Null };
        upgraded.map_err(|failure| failure.with_partial(partial()))
    }

    async fn create(
        &self,
        context: &CallContext,
        entry: &LedgerEntry,
        path: &Path,
        inputs: &Inputs,
        files: Vec<pavior_expr::SkeletonFile>,
    ) -> Result<(), Failure> {
        let settings = [("pavior.resource", context.resource.clone()), (TOKEN, self.token(entry))];
        let building = self.repositories.root.join(".building");
        let identity = entry.identity.clone();
        let mark = move |repository: &Path| mark(repository, &identity);
        self.git.create(&building, path, &inputs.default_branch, files, &settings, &mark).await
    }

    /// Renders skeleton and files off the async threads: both are the user's text and cost what fuel allows.
    async fn render(
        &self,
        context: &CallContext,
        inputs: &Inputs,
        name: &str,
    ) -> Result<Vec<pavior_expr::SkeletonFile>, Failure> {
        let directory = match &inputs.skeleton {
            Some(skeleton) => Some(resolve(&self.config.skeleton_roots, skeleton)?),
            None => None,
        };
        let scope = json!({
            "parameters": inputs.parameters,
            "name": name,
            "repository": name,
            "organization": context.organization,
            "project": context.segment("projects").unwrap_or(name),
            "default_branch": inputs.default_branch,
        });
        let extra = inputs.files.clone();
        let planned = inputs.skeleton_digest;
        let rendered = move || match (directory, planned) {
            (Some(directory), Some(planned)) => {
                let copy = build::pinned_copy(&directory, &planned)?;
                build::render(Some(copy.path()), &extra, &scope)
            }
            (directory, _) => build::render(directory.as_deref(), &extra, &scope),
        };
        tokio::task::spawn_blocking(rendered)
            .await
            .map_err(|_| Failure::new(FailureCode::Internal, "rendering broke off"))?
    }

    async fn try_destroy(&self, context: &CallContext, request: DestroyRequest) -> Result<Success, Failure> {
        let _lock = self.ledger.lock(context).await?;
        let Some(found) = self.ledger.find(context, &request.lookup)? else { return Ok(Success::default()) };
        let Some(entry) = self.ledger.entry(context, &found.identity)? else { return Ok(Success::default()) };
        let path =
            own_name(&entry).map(|name| self.repositories.path(&entry.organization, name)).transpose()?;
        let _name = match path {
            Some(path) => Some(self.ledger.hold(context, &path.to_string_lossy()).await?),
            None => None,
        };
        self.remove(&entry).await?;
        self.ledger.forget(&entry)?;
        Ok(Success::default())
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
        let exists = self.repositories.has(&entry);
        let seen = match (exists, entry.ready) {
            (true, true) => Observation::Found(Found::from(self.success(&entry).await?)),
            // The rename is the moment of creation: before it there is nothing.
            (false, false) => Observation::Absent,
            (true, false) => Observation::Partial {
                identity: Some(entry.identity.clone()),
                state: Value::Null,
                message: "an apply broke off after the repository was made".to_owned(),
            },
            (false, true) => Observation::Partial {
                identity: Some(entry.identity.clone()),
                state: Value::Null,
                message: "the repository's directory is gone".to_owned(),
            },
        };
        Ok(entry.seen(&request.lookup, seen))
    }
}

#[async_trait]
impl Rollback for GitDriver {
    async fn remove(&self, entry: &LedgerEntry) -> Result<(), Failure> {
        let Some(name) = own_name(entry) else { return Ok(()) };
        let path = self.repositories.path(&entry.organization, name)?;
        // Another may have the name by now. Of one that cannot be read that is not known.
        if path.is_dir() && borne(&path, &entry.organization).map_err(build::io("read"))? != entry.identity {
            return Ok(());
        }
        let grave = self
            .repositories
            .root
            .join(".building")
            .join(format!("{}-gone", sha256_hex(entry.identity.as_bytes())));
        build::remove(&path, &grave).map_err(build::io("removed"))
    }

    async fn restore(&self, _before: &LedgerEntry) -> Result<(), Failure> {
        Ok(())
    }
}

/// A skeleton's directory strictly below one of the roots, links followed.
fn resolve(roots: &[PathBuf], name: &str) -> Result<PathBuf, Failure> {
    let bad = |why: &str| Failure::new(FailureCode::InvalidArgument, format!("skeleton `{name}` {why}"));
    let relative = Path::new(name);
    if !relative.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
        return Err(bad("is not a path below the skeletons"));
    }
    for root in roots {
        let (Ok(root), Ok(path)) = (root.canonicalize(), root.join(relative).canonicalize()) else {
            continue;
        };
        if path.starts_with(&root) && path != root && path.is_dir() {
            return Ok(path);
        }
    }
    match roots {
        [] => Err(bad("does not exist: the platform's setting `drivers.skeleton_roots` names no folder")),
        _ => Err(bad("does not exist in a folder of the platform's setting `drivers.skeleton_roots`")),
    }
}

#[async_trait]
impl Driver for GitDriver {
    fn info(&self) -> DriverInfo {
        let repository = TypeSchema {
            id: TYPE.to_owned(),
            inputs: INPUTS.schema(),
            outputs: json!({
                "type": "object",
                "properties": {
                    "name": {"type": "string", "description": "Name of the repository, which stays when the server's address changes."},
                    "url": {"type": "string", "description": "Address for clone and push over HTTP."},
                    "username": {"type": "string"},
                    "default_branch": {"type": "string"},
                    "commit": {"type": ["string", "null"], "description": "Head of the default branch."}
                }
            }),
            secret_outputs: vec!["password".to_owned()],
            immutable: vec!["/name".to_owned(), "/default_branch".to_owned()],
            actions: Vec::new(),
            undo: Undo::Destroy,
            secret_inputs: Vec::new(),
        };
        DriverInfo {
            id: "git".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            types: vec![repository],
        }
    }

    async fn validate(&self, request: ValidateRequest) -> Result<Value, Vec<Violation>> {
        let filled = INPUTS.validate(&request)?;
        let skeleton = filled.get("skeleton").and_then(Value::as_str);
        if let Some(Err(failure)) = skeleton.map(|name| resolve(&self.config.skeleton_roots, name)) {
            return Err(vec![Violation { path: "/skeleton".to_owned(), message: failure.message }]);
        }
        Ok(filled)
    }

    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure> {
        let immutable = ["/name".to_owned(), "/default_branch".to_owned()];
        Ok(diff(request.prior.as_ref().map(|prior| &prior.inputs), request.desired.as_ref(), &immutable))
    }

    async fn pin(&self, request: PinRequest) -> Result<Value, Failure> {
        // A name that is known later only is looked up when it is.
        let skeleton = request.inputs.get("skeleton").and_then(Value::as_str);
        let Some(skeleton) = skeleton.filter(|_| request.action.is_none()) else { return Ok(json!({})) };
        let directory = resolve(&self.config.skeleton_roots, skeleton)?;
        let digest = tokio::task::spawn_blocking(move || build::skeleton_digest(&directory))
            .await
            .map_err(|_| Failure::new(FailureCode::Internal, "reading the skeleton broke off"))??;
        Ok(json!({ "skeleton_digest": digest }))
    }

    async fn apply(&self, context: &CallContext, request: ApplyRequest, sink: &dyn Sink) -> Outcome {
        self.try_apply(context, request, sink).await.into()
    }

    async fn observe(&self, context: &CallContext, request: ObserveRequest) -> Observation {
        let seen = self.try_observe(context, request).await;
        seen.unwrap_or_else(|failure| Observation::Indeterminate { message: failure.message })
    }

    async fn destroy(&self, context: &CallContext, request: DestroyRequest, _sink: &dyn Sink) -> Outcome {
        self.try_destroy(context, request).await.into()
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Failure> {
        let repositories = self.repositories.clone();
        self.ledger.list(request, move |entry| repositories.has(entry)).await
    }

    async fn reconcile(&self, _declared: &BTreeSet<String>) {
        self.ledger.sweep_old().await;
    }

    async fn health(&self) -> Health {
        match self.git.version().await {
            Ok(_) => self.ledger.health(),
            Err(failure) => Health::Down(failure.message),
        }
    }
}

/// The router over the repositories; `recorder` keeps a record of each push.
pub(crate) fn serve(driver: &GitDriver, recorder: Arc<dyn PushRecorder>) -> axum::Router {
    let (repositories, git) = (driver.repositories.clone(), driver.git.clone());
    router(repositories, git, &driver.shim, driver.config.clone(), recorder)
}
