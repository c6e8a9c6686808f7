//! `workload`: a supervised process from an artifact, on a loopback port, that does not outlive the platform.

mod apply;
mod instance;
mod keeper;
mod port;
mod release;
mod spec;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pavior_core::digest::sha256_hex;
use pavior_driver::{
    ApplyRequest, CallContext, DestroyRequest, Driver, DriverInfo, Failure, FailureCode, Found, Health,
    InvokeRequest, ListRequest, ListResponse, Observation, ObserveRequest, Outcome, PlanRequest,
    PlanResponse, Redactor, SecretString, Secrets, Sink, Success, ValidateRequest, Violation, diff,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::child::{Work, gone};
use crate::config::{DriversConfig, ProcessConfig};
use crate::files;
use crate::ledger::{Ledger, LedgerEntry, Rollback, worst};
use instance::{Instance, Launch, Live, tail};
use port::{Port, Ports};
use release::Used;
use spec::{ACTIONS, ARGUMENTS, Desired, INPUTS, Spec, TYPE, declare};

/// How long a look waits for another look, or for a change, to end.
const LOOK: Duration = Duration::from_secs(1);
/// How long a look waits for a workload's turn to be started again, after this process has begun.
const REACH: Duration = Duration::from_secs(3);
/// Most bytes of a log in the message of a start that failed.
const MAX_TOLD: usize = 8 * 1024;
/// Most bytes of a log that the action `logs` gives.
const MAX_SHOWN: usize = 1024 * 1024;

/// At most one instance per workload. Its lock is the workload's: whoever changes, removes or brings up a workload holds
/// it from reading its record to the end.
type Slot = Arc<tokio::sync::Mutex<Option<Instance>>>;

/// The driver.
pub(crate) struct ProcessDriver {
    ledger: Arc<Ledger>,
    data_dir: PathBuf,
    shim: Vec<OsString>,
    inherited: BTreeMap<String, String>,
    config: ProcessConfig,
    slots: Mutex<HashMap<String, Slot>>,
    ports: Ports,
    found: Mutex<keeper::Found>,
    /// The workloads that were looked after since this process began: of the others it is not known yet whether they run.
    reached: watch::Sender<BTreeSet<String>>,
}

fn internal(message: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| {
        tracing::error!(error = %error, message);
        Failure::new(FailureCode::Internal, message)
    }
}

impl ProcessDriver {
    pub(crate) fn new(config: &DriversConfig, ledger: Arc<Ledger>) -> std::io::Result<Self> {
        files::private_directory(&config.data_dir.join("workloads"))?;
        files::private_directory(&config.data_dir.join("artifacts"))?;
        Ok(Self {
            ledger,
            data_dir: config.data_dir.clone(),
            shim: config.shim.clone(),
            inherited: config.environment.clone(),
            config: config.process.clone(),
            slots: Mutex::default(),
            ports: Ports::default(),
            found: Mutex::default(),
            reached: watch::Sender::default(),
        })
    }

    fn directory(&self, identity: &str) -> PathBuf {
        self.data_dir.join("workloads").join(&sha256_hex(identity.as_bytes())[..24])
    }

    fn slot(&self, identity: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // One that nobody holds and that is empty says nothing. One that somebody waits for must stay the only one.
        slots.retain(|_, slot| {
            Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|slot| slot.is_some())
        });
        Arc::clone(slots.entry(identity.to_owned()).or_default())
    }

    fn read(&self, entry: &LedgerEntry) -> Option<Spec> {
        let sealed = entry.data.get("sealed")?.as_str()?;
        let plain = self.ledger.keyring().open_sealed(&entry.identity, sealed).ok()?;
        serde_json::from_slice(&plain).ok()
    }

    fn seal(&self, entry: &mut LedgerEntry, spec: &Spec) -> Result<(), Failure> {
        let failed = internal("the workload's state cannot be written");
        let plain = serde_json::to_vec(spec).map_err(std::io::Error::other).map_err(&failed)?;
        let sealed = self.ledger.keyring().seal(&entry.identity, &plain).map_err(&failed)?;
        entry.data = json!({ "sealed": sealed });
        Ok(())
    }

    fn store(&self, entry: &mut LedgerEntry, spec: &Spec) -> Result<(), Failure> {
        self.seal(entry, spec)?;
        entry.ready = true;
        self.ledger.store(entry)
    }

    fn success(identity: &str, spec: &Spec, pid: Option<u32>) -> Success {
        let outputs = json!({
            "url": format!("http://127.0.0.1:{}", spec.port),
            "port": spec.port,
            "pid": pid,
            "digest": spec.digest,
            "state": spec.desired,
        });
        Success { identity: identity.to_owned(), outputs, secrets: Secrets::new(), state: json!({}) }
    }

    async fn end(&self, instance: Option<Instance>) {
        if let Some(instance) = instance {
            instance.stop().await;
        }
    }

    /// The releases that a workload uses.
    fn used(&self, identity: &str, spec: &Spec) -> Used {
        let texts = spec.command.iter().chain(spec.variables.values());
        Used {
            releases: self.directory(identity).join("releases"),
            texts: texts.map(|text| self.ledger.folder().here(text)).collect(),
        }
    }

    /// Starts one instance on its port.
    fn begin(&self, identity: &str, spec: &Spec, port: Port) -> Result<Instance, Failure> {
        self.has_reached(identity);
        let directory = self.directory(identity);
        let home = directory.join("data");
        files::private_directory(&home).map_err(internal("the workload's directory cannot be made"))?;
        let status = directory.join(format!("status-{}", port.number));
        let secrets: Vec<SecretString> = spec.sensitive.iter().cloned().map(SecretString::from).collect();
        let here = |text: &String| self.ledger.folder().here(text);
        let mut environment = self.inherited.clone();
        environment.extend(spec.variables.iter().map(|(name, value)| (name.clone(), here(value))));
        let fixed = [
            ("PORT", port.number.to_string()),
            ("HOST", "127.0.0.1".to_owned()),
            ("HOME", home.to_string_lossy().into_owned()),
        ];
        environment.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
        let work = Work {
            command: spec.command.iter().map(|word| OsString::from(here(word))).collect(),
            environment,
            directory: home,
            status_file: Some(status.clone()),
            grace: self.config.grace,
            redactor: Redactor::new(&secrets),
            holds: None,
        };
        Ok(Instance::start(Launch {
            shim: self.shim.clone(),
            work,
            status,
            log: directory.join("output.log"),
            port,
            used: self.used(identity, spec),
            config: self.config.clone(),
        }))
    }

    /// Starts one instance and waits until it answers; on failure nothing is left running.
    async fn launch(
        &self,
        identity: &str,
        spec: &Spec,
        port: Port,
        cancel: &CancellationToken,
    ) -> Result<(Instance, u32), Failure> {
        let instance = self.begin(identity, spec, port)?;
        let mut watcher = instance.watcher();
        let within = Duration::from_millis(spec.health_timeout_ms);
        let failure = tokio::select! {
            healthy = watcher.healthy(spec.health_path.as_deref(), within) => match healthy {
                Ok(pid) => return Ok((instance, pid)),
                Err(why) => {
                    let log = tail(&self.directory(identity).join("output.log"), 20, MAX_TOLD);
                    let message = format!("the workload did not start: {why}\n{log}");
                    Failure::new(FailureCode::WorkFailed, message.trim())
                }
            },
            () = cancel.cancelled() => Failure::new(FailureCode::Cancelled, "cancelled while it started"),
        };
        self.end(Some(instance)).await;
        Err(failure)
    }

    /// Starts one again as it is recorded. One that should run and does not come up stays supervised, which tries it
    /// again; the failure says so.
    async fn start_again(
        &self,
        entry: &mut LedgerEntry,
        spec: &mut Spec,
        running: &mut Option<Instance>,
        cancel: &CancellationToken,
    ) -> Result<u32, Failure> {
        let should_run = spec.desired == Desired::Running;
        let port = self.ports.take(spec.port)?;
        spec.desired = Desired::Running;
        match self.launch(&entry.identity, spec, port, cancel).await {
            Ok((instance, pid)) => {
                *running = Some(instance);
                Ok(pid)
            }
            Err(mut failure) => {
                if should_run {
                    *running = Some(self.supervise(entry, spec)?);
                    failure.message.push_str("\nit is tried again until it comes up or is stopped");
                }
                Err(failure)
            }
        }
    }

    /// Nothing of an earlier supervisor may still run when a new process starts.
    async fn wait_for_old(&self, identity: &str, running: Option<&Instance>) {
        let Ok(entries) = std::fs::read_dir(self.directory(identity)) else { return };
        let own = running.map(|instance| format!("status-{}", instance.port));
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("status-") && Some(&name) != own.as_ref() {
                gone(&entry.path(), self.config.grace + Duration::from_secs(1)).await;
            }
        }
    }

    /// Stops everything; what should run stays recorded.
    pub(crate) async fn stop_all(&self) {
        let slots: Vec<Slot> = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.values().cloned().collect()
        };
        let stops = slots.into_iter().map(|slot| async move {
            let instance = slot.lock().await.take();
            self.end(instance).await;
        });
        futures::future::join_all(stops).await;
    }

    async fn try_destroy(&self, context: &CallContext, request: DestroyRequest) -> Result<Success, Failure> {
        let _lock = self.ledger.lock(context).await?;
        let Some(found) = self.ledger.find(context, &request.lookup)? else { return Ok(Success::default()) };
        let slot = self.slot(&found.identity);
        let mut running = slot.lock().await;
        let Some(mut entry) = self.ledger.entry(context, &found.identity)? else {
            return Ok(Success::default());
        };
        self.ledger.mark_removing(&mut entry)?;
        let instance = running.take();
        self.end(instance).await;
        self.wait_for_old(&entry.identity, None).await;
        self.remove(&entry).await?;
        self.reached.send_if_modified(|reached| reached.remove(&entry.identity));
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
        if let (Some(outputs), Some(spec)) = (found.result, self.read(&entry)) {
            let is = Found::from(Self::success(&entry.identity, &spec, None));
            return Ok(Observation::Found(Found { outputs, ..is }));
        }
        let partial = |message: &str| Observation::Partial {
            identity: Some(entry.identity.clone()),
            state: Value::Null,
            message: message.to_owned(),
        };
        let slot = self.slot(&entry.identity);
        let should_run = self.read(&entry).is_some_and(|spec| spec.desired == Desired::Running);
        if entry.ready && should_run && !self.reach(&entry.identity, REACH).await {
            let message = "the workload is about to be started again".to_owned();
            return Ok(Observation::Indeterminate { message });
        }
        // Somebody else who looks is done in no time; who changes it takes longer.
        let Ok(running) = tokio::time::timeout(LOOK, slot.lock()).await else {
            return Ok(Observation::Indeterminate { message: "the workload is being changed".to_owned() });
        };
        let watcher = running.as_ref().map(Instance::watcher);
        drop(running);
        let live = match watcher {
            Some(mut watcher) => Some(watcher.begun(LOOK).await),
            None => None,
        };
        let seen = match (self.read(&entry), live) {
            (None, None) if entry.reconstructed => partial("its record is damaged"),
            (None, None) => Observation::Absent,
            (None, Some(_)) => partial("an apply broke off"),
            (Some(spec), Some(Live::Up { pid })) => {
                Observation::Found(Found::from(Self::success(&entry.identity, &spec, Some(pid))))
            }
            (Some(spec), _) if spec.desired == Desired::Stopped => {
                Observation::Found(Found::from(Self::success(&entry.identity, &spec, None)))
            }
            (Some(_), Some(Live::Starting)) => {
                Observation::Indeterminate { message: "the workload is being started".to_owned() }
            }
            (Some(_), Some(Live::Crashed { message })) => partial(&format!("the process {message}")),
            (Some(_), _) => partial("the process does not run"),
        };
        Ok(entry.seen(&request.lookup, seen))
    }

    async fn try_invoke(&self, context: &CallContext, request: InvokeRequest) -> Result<Success, Failure> {
        if !ACTIONS.iter().any(|(name, _)| *name == request.action) {
            let message = format!("`{TYPE}` has no action `{}`", request.action);
            return Err(Failure::new(FailureCode::Unsupported, message));
        }
        let _lock = self.ledger.lock(context).await?;
        let missing =
            || Failure::new(FailureCode::NotFound, format!("workload `{}` does not exist", request.identity));
        let slot = self.slot(&request.identity);
        let mut running = slot.lock().await;
        let mut entry = self.ledger.entry(context, &request.identity)?.ok_or_else(missing)?;
        let mut spec = self.read(&entry).ok_or_else(missing)?;
        if request.action == "logs" {
            let lines = ARGUMENTS.read(&request.arguments)?.lines.unwrap_or(100).min(10_000);
            let text = tail(
                &self.directory(&entry.identity).join("output.log"),
                usize::try_from(lines).unwrap_or(100),
                MAX_SHOWN,
            );
            let outputs = json!({ "log": text });
            return Ok(Success { outputs, ..Self::success(&entry.identity, &spec, None) });
        }
        let asked = json!({ "action": request.action, "arguments": request.arguments });
        if let Some(outputs) = self.ledger.replay(context, &asked)?.and_then(|used| used.result) {
            return Ok(Success { outputs, ..Self::success(&entry.identity, &spec, None) });
        }
        let up = matches!(running.as_ref().map(Instance::live), Some(Live::Up { .. }));
        if request.action == "restart" || (request.action == "start" && !up) {
            // Before what runs is ended for it.
            self.used(&entry.identity, &spec).verify().await?;
        }
        self.ledger.record_key(context, &entry.identity, &asked, None)?;
        if request.action != "start" || running.is_none() {
            let instance = running.take();
            self.end(instance).await;
        }
        self.wait_for_old(&entry.identity, running.as_ref()).await;
        let mut pid = None;
        if request.action == "stop" {
            spec.desired = Desired::Stopped;
        } else if let Some(Live::Up { pid: up }) = running.as_ref().map(Instance::live) {
            pid = Some(up);
        } else {
            let old = running.take();
            self.end(old).await;
            pid = Some(self.start_again(&mut entry, &mut spec, &mut running, &context.cancel).await?);
        }
        self.store(&mut entry, &spec)?;
        let success = Self::success(&entry.identity, &spec, pid);
        self.ledger.record_key(context, &entry.identity, &asked, Some(success.outputs.clone()))?;
        Ok(success)
    }
}

#[async_trait]
impl Driver for ProcessDriver {
    fn info(&self) -> DriverInfo {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        DriverInfo { id: "process".to_owned(), version, types: vec![declare()] }
    }

    async fn validate(&self, request: ValidateRequest) -> Result<Value, Vec<Violation>> {
        INPUTS.validate(&request)
    }

    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure> {
        Ok(diff(request.prior.as_ref().map(|prior| &prior.inputs), request.desired.as_ref(), &[]))
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

    async fn invoke(&self, context: &CallContext, request: InvokeRequest, _sink: &dyn Sink) -> Outcome {
        self.try_invoke(context, request).await.into()
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Failure> {
        self.ledger.list(request, |_| true).await
    }

    async fn reconcile(&self, declared: &BTreeSet<String>) {
        self.keep(declared).await;
        self.ledger.sweep_old().await;
    }

    async fn health(&self) -> Health {
        match self.shim.first().map(PathBuf::from) {
            Some(program) if !program.is_absolute() || program.exists() => {
                worst(self.ledger.health(), self.failing())
            }
            _ => Health::Down("the shim's program does not exist".to_owned()),
        }
    }
}
