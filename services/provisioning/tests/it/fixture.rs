//! The service behind its server stack, called through the generated client.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pavior_auth::ServiceIdentity;
use pavior_core::principal::Principal;
use pavior_driver::testing::FakeDriver;
use pavior_driver::{
    ApplyRequest, ArtifactContent, CallContext, DestroyRequest, Driver, DriverInfo, Failure, Health,
    InvokeRequest, ListRequest, ListResponse, Observation, ObserveRequest, Outcome, PinRequest, PlanRequest,
    PlanResponse, ReadArtifactRequest, Registry, Sink, ValidateRequest, Violation, async_trait,
};
use pavior_proto::google::longrunning::operations_client::OperationsClient;
use pavior_proto::google::longrunning::{Operation, WaitOperationRequest, operation};
use pavior_proto::google::rpc;
use pavior_proto::pavior::governance::internal::v1::resource_facts_service_client::ResourceFactsServiceClient;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::deployment_service_client::DeploymentServiceClient;
use pavior_proto::pavior::provisioning::v1::operation_service_client::OperationServiceClient;
use pavior_proto::pavior::provisioning::v1::pipeline_service_client::PipelineServiceClient;
use pavior_proto::pavior::provisioning::v1::plan_service_client::PlanServiceClient;
use pavior_proto::pavior::provisioning::v1::project_service_client::ProjectServiceClient;
use pavior_provisioning::{Config, Deps, ROLE, SealingKey};
use pavior_rpc::problem::{Decoded, from_rpc_status, from_status};
use pavior_rpc::{StackOptions, Transport, local};
use pavior_runtime::HealthCheck;
use pavior_testkit::db::TestDb;
use pavior_testkit::{PAGE_TOKEN_KEY, ServiceHarness, SystemClock, SystemIds, meter};
use prost::{Message, Name};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use crate::harness::alice;
use crate::peers::Peers;

pub(crate) const ACME: &str = "organizations/acme";
pub(crate) const HELLO: &str = "organizations/acme/projects/hello";

/// The scripted driver, with runs that make an artifact for each commit. A revision is its own commit.
/// A workload answers somewhere else after each apply.
struct Maker(FakeDriver, Arc<AtomicBool>, Arc<Mutex<String>>, Arc<Pages>);

/// The pages of what the driver has.
pub(crate) struct Pages {
    /// The most that is on one.
    pub(crate) size: AtomicUsize,
    /// How many were asked for since that is less than everything.
    pub(crate) asked: AtomicUsize,
}

fn revision(arguments: &Value) -> &str {
    let named = arguments.get("commit").or_else(|| arguments.get("ref")).and_then(Value::as_str);
    named.unwrap_or("main")
}

/// What a run of a commit leaves: more than a piece.
pub(crate) fn artifact(commit: &str) -> Vec<u8> {
    format!("{commit}\n").into_bytes().into_iter().cycle().take(100_000).collect()
}

#[async_trait]
impl Driver for Maker {
    fn info(&self) -> DriverInfo {
        let mut info = self.0.info();
        for made in info.types.iter_mut().filter(|made| made.id == "git-repository") {
            made.outputs = json!({"type": "object", "properties": {"commit": {"type": "string"}}});
        }
        info
    }
    async fn pin(&self, request: PinRequest) -> Result<Value, Failure> {
        let held = self.1.load(Ordering::SeqCst) && request.action.is_some();
        Ok(if held { json!({ "commit": revision(&request.inputs) }) } else { json!({}) })
    }
    async fn validate(&self, request: ValidateRequest) -> Result<Value, Vec<Violation>> {
        self.0.validate(request).await
    }
    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure> {
        self.0.plan(request).await
    }
    async fn apply(&self, context: &CallContext, request: ApplyRequest, sink: &dyn Sink) -> Outcome {
        let commit = request.resource_type == "git-repository";
        let workload = request.resource_type == "workload";
        match self.0.apply(context, request, sink).await {
            Outcome::Succeeded(mut success) if workload => {
                let url = format!("fake://workload/{}", self.0.effects());
                success.outputs["url"] = json!(url);
                *self.2.lock().unwrap() = url;
                Outcome::Succeeded(success)
            }
            Outcome::Succeeded(mut success) if commit => {
                success.outputs["commit"] = json!("main");
                Outcome::Succeeded(success)
            }
            other => other,
        }
    }
    async fn observe(&self, context: &CallContext, request: ObserveRequest) -> Observation {
        self.0.observe(context, request).await
    }
    async fn destroy(&self, context: &CallContext, request: DestroyRequest, sink: &dyn Sink) -> Outcome {
        self.0.destroy(context, request, sink).await
    }
    async fn invoke(&self, context: &CallContext, request: InvokeRequest, sink: &dyn Sink) -> Outcome {
        let commit = revision(&request.arguments).to_owned();
        let left = artifact(&commit);
        let sha256 = self.0.keep_artifact(&context.organization, left.clone()).hex();
        match self.0.invoke(context, request, sink).await {
            Outcome::Succeeded(mut success) => {
                success.outputs = json!({
                    "run": "r", "commit": commit,
                    "steps": [{"name": "test", "state": "SUCCEEDED", "exit_code": 0, "start_ms": 1, "end_ms": 4}],
                    "elapsed_ms": 5,
                    "artifacts": [{"name": "app", "path": format!("/artifacts/{commit}"), "sha256": sha256, "size": left.len()}],
                });
                Outcome::Succeeded(success)
            }
            other => other,
        }
    }
    async fn read_artifact(&self, request: ReadArtifactRequest) -> Result<ArtifactContent, Failure> {
        self.0.read_artifact(request).await
    }
    async fn list(&self, request: ListRequest) -> Result<ListResponse, Failure> {
        let Pages { size, asked } = &*self.3;
        let page_size = request.page_size.min(size.load(Ordering::SeqCst));
        asked.fetch_add(usize::from(page_size < request.page_size), Ordering::SeqCst);
        self.0.list(ListRequest { page_size, ..request }).await
    }
    async fn reconcile(&self, declared: &BTreeSet<String>) {
        self.0.reconcile(declared).await;
    }
    async fn health(&self) -> Health {
        self.0.health().await
    }
}

pub(crate) fn content() -> Value {
    json!({
        "project": {
            "repository": { "type": "git-repository", "inputs": { "language": "${{ parameters.language }}" } },
            "pipeline": { "type": "ci-pipeline", "inputs": { "repository": "${{ resources.repository.url }}" } },
            "entry": { "type": "catalog-entity", "inputs": { "kind": "component", "id": "${{ project.id }}", "spec": { "type": "service" } } }
        },
        "environments": {
            "development": {
                "create": "with_project",
                "resources": { "database": { "type": "sql-database", "inputs": { "secret": true, "size": "${{ parameters.size }}" } } },
                "workload": { "artifact": "app", "inputs": {
                    "command": ["${{ artifact.path }}"],
                    "variables": { "URL": "${{ resources.database.password }}", "ENV": "${{ environment.id }}" }
                } }
            },
            "staging": {
                "resources": { "database": { "type": "sql-database", "inputs": { "secret": true, "size": "${{ parameters.size }}" } } },
                "workload": { "artifact": "app", "inputs": { "command": ["${{ artifact.path }}"] } }
            },
            "preview": { "ttl": "1m", "resources": { "database": { "type": "sql-database", "inputs": {} } } },
            "impossible": { "resources": { "thing": { "type": "unheard-of", "inputs": {} } } },
            "undecided": { "resources": { "thing": { "type": "tied", "inputs": {} } } }
        }
    })
}

pub(crate) struct Fixture {
    pub(crate) peers: Peers,
    pub(crate) driver: FakeDriver,
    pub(crate) drivers: Registry,
    /// Whether the driver says which commit a run would be of.
    pub(crate) pins: Arc<AtomicBool>,
    pub(crate) pages: Arc<Pages>,
    /// Where the workload that was applied last answers.
    pub(crate) answers_at: Arc<Mutex<String>>,
    pub(crate) store: pavior_store::Store,
    pub(crate) gateway: ServiceIdentity,
    pub(crate) checks: Vec<HealthCheck>,
    transport: Transport,
    cancel: CancellationToken,
    _file: TestDb,
}

impl Fixture {
    pub(crate) async fn new(file: TestDb) -> Self {
        Self::with(file, |_| {}).await
    }

    /// With peers that are told something before the service starts.
    pub(crate) async fn with(file: TestDb, tell: impl FnOnce(&Peers)) -> Self {
        let peers = Peers::default();
        tell(&peers);
        {
            let mut state = peers.state();
            state.content = content();
            state.schema = json!({
                "type": "object", "required": ["language"], "additionalProperties": false,
                "properties": { "language": { "enum": ["rust", "python"] }, "size": { "enum": ["small", "large"], "default": "small" } }
            });
        }
        let store = file.connect().await;
        let harness = ServiceHarness::with(ROLE, &[], Arc::new(SystemClock), Arc::new(SystemIds));
        let driver = FakeDriver::new(
            "fake",
            &["git-repository", "ci-pipeline", "sql-database", "workload", "unheard-of"],
        );
        let pins = Arc::new(AtomicBool::new(true));
        let answers_at = Arc::new(Mutex::new(String::new()));
        let pages = Arc::new(Pages { size: AtomicUsize::new(usize::MAX), asked: AtomicUsize::new(0) });
        let config = Config {
            poll_ms: 30,
            backoff_ms: 2,
            max_backoff_ms: 10,
            approval_poll_ms: 20,
            expiry_poll_ms: 50,
            driver_poll_ms: 50,
            cancel_grace_ms: 300,
            ..Config::default()
        };
        let drivers =
            Registry::new([Arc::new(Maker(driver.clone(), pins.clone(), answers_at.clone(), pages.clone()))
                as Arc<dyn Driver>]);
        let deps = Deps {
            store: store.clone(),
            clock: harness.clock.clone(),
            ids: harness.ids.clone(),
            identity: harness.identity(ROLE).clone(),
            catalog: peers.catalog.transport(),
            policy: peers.policy.transport(),
            audit: peers.audit.transport(),
            drivers: drivers.clone(),
            sealing_key: SealingKey::new([3; 32]),
            meter: meter(),
            page_token_key: PAGE_TOKEN_KEY,
            instance: "test".into(),
        };
        let component = pavior_provisioning::build(config, deps).await.unwrap();
        let gateway = harness.identity("gateway").clone();
        let server = harness.stack(component.routes, StackOptions::default());
        let transport = harness.governed(local(server));
        let cancel = CancellationToken::new();
        for task in component.tasks {
            tokio::spawn((task.run)(cancel.clone()));
        }
        let checks = component.checks;
        Self {
            peers,
            driver,
            drivers,
            pins,
            pages,
            answers_at,
            store,
            gateway,
            checks,
            transport,
            cancel,
            _file: file,
        }
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport.clone()
    }

    pub(crate) fn projects(&self) -> ProjectServiceClient<Transport> {
        ProjectServiceClient::new(self.transport.clone())
    }

    pub(crate) fn pipelines(&self) -> PipelineServiceClient<Transport> {
        PipelineServiceClient::new(self.transport.clone())
    }

    pub(crate) fn deployments(&self) -> DeploymentServiceClient<Transport> {
        DeploymentServiceClient::new(self.transport.clone())
    }

    pub(crate) fn plans(&self) -> PlanServiceClient<Transport> {
        PlanServiceClient::new(self.transport.clone())
    }

    pub(crate) fn operation_service(&self) -> OperationServiceClient<Transport> {
        OperationServiceClient::new(self.transport.clone())
    }

    pub(crate) fn operations(&self) -> OperationsClient<Transport> {
        OperationsClient::new(self.transport.clone())
    }

    pub(crate) fn facts(&self) -> ResourceFactsServiceClient<Transport> {
        ResourceFactsServiceClient::new(self.transport.clone())
    }

    pub(crate) fn by<T>(&self, principal: &Principal, message: T) -> Request<T> {
        self.gateway.request_as(&Arc::new(principal.clone()), &principal.organization, message)
    }

    pub(crate) fn call<T>(&self, message: T) -> Request<T> {
        self.by(&alice(), message)
    }

    /// Waits until nothing more happens by itself: the operation is done, or stuck.
    pub(crate) async fn wait(&self, operation: Operation) -> Operation {
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        let mut operation = operation;
        while !operation.done && !is_stuck(&operation) {
            assert!(tokio::time::Instant::now() < until, "not done: {:?}", metadata(&operation));
            let request = WaitOperationRequest {
                name: operation.name.clone(),
                timeout: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
            };
            operation = self.operations().wait_operation(self.call(request)).await.unwrap().into_inner();
        }
        operation
    }

    pub(crate) async fn project(&self) -> Operation {
        let operation = self.projects().create_project(self.call(hello())).await.unwrap().into_inner();
        let done = self.wait(operation).await;
        assert_eq!(problem(&done), None);
        done
    }

    /// Asks for an environment of the project, and is told of the operation.
    pub(crate) async fn begin_environment(&self, id: &str) -> Operation {
        let request = self.call(environment_request(id));
        self.projects().create_environment(request).await.unwrap().into_inner()
    }

    pub(crate) async fn environment(&self, id: &str) -> pb::Environment {
        let name = format!("{HELLO}/environments/{id}");
        self.projects()
            .get_environment(self.call(pb::GetEnvironmentRequest { name, ..Default::default() }))
            .await
            .unwrap()
            .into_inner()
    }

    /// Everything that the database has written.
    pub(crate) fn raw(&self) -> Vec<u8> {
        let url = self._file.config().url.expose().to_owned();
        let path = url.trim_start_matches("sqlite://").split('?').next().unwrap();
        let files = ["", "-wal"].map(|suffix| std::fs::read(format!("{path}{suffix}")).unwrap_or_default());
        files.concat()
    }

    pub(crate) fn decide(&self, action: &str, decision: Value) {
        self.peers.state().decisions.insert(action.to_owned(), decision);
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

pub(crate) fn hello() -> pb::CreateProjectRequest {
    pb::CreateProjectRequest {
        parent: ACME.into(),
        project_id: "hello".into(),
        project: Some(pb::Project {
            owner: format!("{ACME}/groups/payments"),
            template_version: format!("{ACME}/templates/web-service/versions/stable"),
            parameters: pavior_rpc::convert::to_struct(&json!({"language": "rust"})).ok(),
            labels: [("team".to_owned(), "payments".to_owned()), ("tier".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn environment_request(id: &str) -> pb::CreateEnvironmentRequest {
    pb::CreateEnvironmentRequest {
        parent: HELLO.into(),
        environment_id: id.into(),
        environment: Some(pb::Environment { display_name: format!("the {id}"), ..Default::default() }),
        ..Default::default()
    }
}

pub(crate) fn metadata(operation: &Operation) -> pb::OperationMetadata {
    let any = operation.metadata.as_ref().unwrap();
    assert_eq!(any.type_url, pb::OperationMetadata::type_url());
    pb::OperationMetadata::decode(any.value.as_slice()).unwrap()
}

pub(crate) fn response<M: Message + Name + Default>(operation: &Operation) -> M {
    let Some(operation::Result::Response(any)) = &operation.result else {
        panic!("no response: {:?}", operation.result);
    };
    assert_eq!(any.type_url, M::type_url());
    M::decode(any.value.as_slice()).unwrap()
}

pub(crate) fn is_stuck(operation: &Operation) -> bool {
    metadata(operation).state() == pb::operation_metadata::State::Stuck
}

/// What went wrong with an operation that is done, or stuck.
pub(crate) fn status(operation: &Operation) -> Option<rpc::Status> {
    match &operation.result {
        Some(operation::Result::Error(status)) => Some(status.clone()),
        None if is_stuck(operation) => metadata(operation).error,
        _ => None,
    }
}

/// A status by what it says: the maps in its details are written in any order.
pub(crate) fn said(status: Option<rpc::Status>) -> Option<(Code, String, String)> {
    let decoded = from_rpc_status(&status?);
    Some((decoded.code, decoded.reason, decoded.message))
}

pub(crate) fn problem(operation: &Operation) -> Option<String> {
    status(operation).map(|status| from_rpc_status(&status).reason + ": " + &status.message)
}

pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>) -> Decoded {
    from_status(&result.unwrap_err())
}
