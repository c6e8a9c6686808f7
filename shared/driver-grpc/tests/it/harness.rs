//! Ways to reach a driver, a driver that a test drives, and a sink that tells what it sees.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use pavior_driver::conformance::{Case, Subject};
use pavior_driver::testing::FakeDriver;
use pavior_driver::{
    ApplyRequest, CallContext, DestroyRequest, Driver, DriverInfo, Failure, Health, InvokeRequest, LogStream,
    Observation, ObserveRequest, Outcome, PlanRequest, PlanResponse, Progress, Sink, SinkClosed,
    ValidateRequest, Violation, async_trait,
};
use pavior_driver_grpc::{RemoteDriver, RemoteOptions, serve};
use pavior_rpc::{StackOptions, Transport, local, server};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Longer than anything takes.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A server on a free port; dropped, it cuts its connections off.
pub(crate) struct Tcp {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Tcp {
    pub(crate) async fn serve(routes: Routes) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let stack = server::stack(routes, StackOptions::default());
        tokio::spawn(pavior_rpc::serve(listener, stack, None, shutdown.clone(), Duration::ZERO));
        Self { address, shutdown }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

pub(crate) fn stacked(routes: Routes) -> Transport {
    local(server::stack(routes, StackOptions::default()))
}

pub(crate) async fn connect(transport: Transport) -> RemoteDriver {
    RemoteDriver::connect(transport, RemoteOptions::default()).await.unwrap()
}

/// The driver behind gRPC in this process.
pub(crate) async fn remote(driver: impl Driver + 'static) -> RemoteDriver {
    connect(stacked(serve(Arc::new(driver)))).await
}

/// The driver behind gRPC over TCP.
pub(crate) async fn over_tcp(driver: impl Driver + 'static) -> (RemoteDriver, Tcp) {
    let tcp = Tcp::serve(serve(Arc::new(driver))).await;
    let endpoint = tcp.endpoint();
    let remote = RemoteDriver::connect_endpoint(&endpoint, None, RemoteOptions::default()).await;
    (remote.unwrap(), tcp)
}

pub(crate) fn subject(driver: Arc<dyn Driver>) -> Subject {
    Subject {
        driver,
        resource_type: "thing".to_owned(),
        organization: "acme".to_owned(),
        run: "kit".to_owned(),
        case: Box::new(|name| Case {
            resource: format!("organizations/acme/projects/p/resources/{name}"),
            inputs: json!({"name": name, "secret": true, "list": [1, 2.5, null]}),
            changed: Some(json!({"name": name, "secret": true, "size": 2})),
            failing: None,
            sensitive: Vec::new(),
        }),
    }
}

pub(crate) fn context(step: &str) -> CallContext {
    let resource = format!("organizations/acme/projects/p/resources/{step}");
    let mut context = CallContext::new("acme", &resource, &format!("op/{step}/1"), 7);
    "op".clone_into(&mut context.operation);
    step.clone_into(&mut context.step);
    context
}

pub(crate) fn apply_request(inputs: Value) -> ApplyRequest {
    ApplyRequest {
        resource_type: "thing".to_owned(),
        prior: None,
        inputs,
        sensitive: Vec::new(),
        declaration_digest: String::new(),
    }
}

pub(crate) fn invoke_request(identity: &str, arguments: Value) -> InvokeRequest {
    InvokeRequest {
        resource_type: "thing".to_owned(),
        identity: identity.to_owned(),
        action: "restart".to_owned(),
        arguments,
        sensitive: Vec::new(),
        state: json!(null),
    }
}

/// Applies empty inputs as this step, within [`SOON`].
pub(crate) async fn apply(driver: &RemoteDriver, step: &str, sink: &dyn Sink) -> Outcome {
    let context = context(step);
    timeout(SOON, driver.apply(&context, apply_request(json!({})), sink)).await.unwrap()
}

/// What `Seen` saw.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Progress(String, Option<u8>),
    Log(LogStream, Vec<u8>),
    Checkpoint(Value),
    Heartbeat,
}

/// A sink that passes everything on to the test, and refuses checkpoints and signs of life when it was told to.
pub(crate) struct Seen {
    events: mpsc::UnboundedSender<Event>,
    pub(crate) closed: Option<SinkClosed>,
}

impl Seen {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Self { events, closed: None }, receiver)
    }

    fn claim(&self) -> Result<(), SinkClosed> {
        self.closed.map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Sink for Seen {
    async fn progress(&self, progress: Progress) {
        let _ = self.events.send(Event::Progress(progress.message, progress.percent));
    }
    async fn log(&self, stream: LogStream, bytes: &[u8]) {
        let _ = self.events.send(Event::Log(stream, bytes.to_vec()));
    }
    async fn checkpoint(&self, checkpoint: Value) -> Result<(), SinkClosed> {
        let _ = self.events.send(Event::Checkpoint(checkpoint));
        self.claim()
    }
    async fn heartbeat(&self) -> Result<(), SinkClosed> {
        let _ = self.events.send(Event::Heartbeat);
        self.claim()
    }
}

type Work =
    dyn for<'a> Fn(&'a CallContext, ApplyRequest, &'a dyn Sink) -> BoxFuture<'a, Outcome> + Send + Sync;

/// A driver whose apply is the test's, and which keeps the last context and request.
#[derive(Clone)]
pub(crate) struct Probe {
    pub(crate) fake: FakeDriver,
    pub(crate) work: Arc<Work>,
    pub(crate) last: Arc<Mutex<Option<(CallContext, ApplyRequest)>>>,
    pub(crate) observation: Observation,
    /// What every action ends with, in the place of the fake's own.
    pub(crate) invoked: Option<Outcome>,
    pub(crate) version: Arc<Mutex<String>>,
}

impl Probe {
    pub(crate) fn new(
        work: impl for<'a> Fn(&'a CallContext, ApplyRequest, &'a dyn Sink) -> BoxFuture<'a, Outcome>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            fake: FakeDriver::new("probe", &["thing"]),
            work: Arc::new(work),
            last: Arc::default(),
            observation: Observation::Absent,
            invoked: None,
            version: Arc::new(Mutex::new("1.0.0".to_owned())),
        }
    }

    /// Answers with this.
    pub(crate) fn answering(outcome: Outcome) -> Self {
        Self::new(move |_, _, _| {
            let outcome = outcome.clone();
            Box::pin(async move { outcome })
        })
    }
}

#[async_trait]
impl Driver for Probe {
    fn info(&self) -> DriverInfo {
        DriverInfo { version: self.version.lock().unwrap().clone(), ..self.fake.info() }
    }
    async fn validate(&self, request: ValidateRequest) -> Result<Value, Vec<Violation>> {
        self.fake.validate(request).await
    }
    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure> {
        self.fake.plan(request).await
    }
    async fn apply(&self, context: &CallContext, request: ApplyRequest, sink: &dyn Sink) -> Outcome {
        *self.last.lock().unwrap() = Some((context.clone(), request.clone()));
        (self.work)(context, request, sink).await
    }
    async fn observe(&self, _: &CallContext, _: ObserveRequest) -> Observation {
        self.observation.clone()
    }
    async fn destroy(&self, context: &CallContext, request: DestroyRequest, sink: &dyn Sink) -> Outcome {
        self.fake.destroy(context, request, sink).await
    }
    async fn invoke(&self, context: &CallContext, request: InvokeRequest, sink: &dyn Sink) -> Outcome {
        match self.invoked.clone() {
            Some(outcome) => outcome,
            None => self.fake.invoke(context, request, sink).await,
        }
    }
    async fn health(&self) -> Health {
        Health::Down("the disk is full".to_owned())
    }
}
