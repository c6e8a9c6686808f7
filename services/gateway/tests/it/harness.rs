//! The gateway with every service behind it, on ports of its own.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pavior_auth::{DevClaims, DevIssuer, TokenVerifier};
use pavior_core::clock::ManualClock;
use pavior_core::id_gen::SystemIds;
use pavior_gateway::{Config, Deps};
use pavior_proto::pavior::audit::internal::v1::{
    AppendRecordsRequest, AppendRecordsResponse, SequencedEvent,
};
use pavior_proto::pavior::catalog::v1::catalog_service_client::CatalogServiceClient;
use pavior_proto::pavior::policy::internal::v1::DecideRequest;
use pavior_proto::pavior::policy::v1::{Decision, Effect};
use pavior_rpc::server::{ServeOptions, serve_with};
use pavior_rpc::{Health, StackOptions, remote};
use pavior_testkit::fake::Fake;
use pavior_testkit::{ServiceHarness, meter, wait_for};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

pub(crate) const DECIDE: &str = "/pavior.policy.internal.v1.DecisionService/Decide";
pub(crate) const FACTS: &str = "/pavior.governance.internal.v1.ResourceFactsService/GetResourceFacts";
pub(crate) const APPEND: &str = "/pavior.audit.internal.v1.RecorderService/AppendRecords";
pub(crate) const GET_ENTITY: &str = "/pavior.catalog.v1.CatalogService/GetEntity";
pub(crate) const ENTITY: &str = "organizations/acme/kinds/component/entities/shop";

const ROLES: [&str; 4] = ["catalog", "provisioning", "policy", "audit"];

/// A server: where it listens, how to stop it, and its end.
type Running = (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>);

pub(crate) struct World {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) issuer: DevIssuer,
    pub(crate) address: SocketAddr,
    fakes: HashMap<&'static str, Fake>,
    running: Mutex<HashMap<&'static str, Running>>,
    harness: ServiceHarness,
    records: Arc<Mutex<Vec<SequencedEvent>>>,
    end: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let harness = ServiceHarness::new("gateway", &[]);
        let clock = harness.clock.clone();
        let identity = harness.identity("gateway").clone();
        let issuer = DevIssuer::open(dir.path(), clock.clone(), Arc::new(SystemIds)).unwrap();
        let tokens = TokenVerifier::new(
            vec![issuer.config(
                ["acme", "evil", "pavior"].map(str::to_owned).to_vec(),
                vec!["organizations/acme/users/root".to_owned()],
            )],
            clock.clone(),
        )
        .unwrap();
        let end = CancellationToken::new();
        let mut world = Self {
            clock: clock.clone(),
            issuer,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            fakes: ROLES.map(|role| (role, Fake::default())).into(),
            running: Mutex::default(),
            harness,
            records: Arc::default(),
            end: end.clone(),
            _dir: dir,
        };
        world.prepare();
        let mut upstreams = BTreeMap::new();
        for role in ROLES {
            let address = world.start(role, SocketAddr::from(([127, 0, 0, 1], 0))).await;
            upstreams.insert(role.to_owned(), remote(&format!("http://{address}"), None));
        }
        let deps = Deps {
            identity,
            tokens,
            upstreams,
            clock,
            ids: Arc::new(SystemIds),
            meter: meter(),
            descriptors: pavior_proto::DESCRIPTORS,
        };
        let mut component = pavior_gateway::build(&config, deps).unwrap();
        for task in std::mem::take(&mut component.tasks) {
            tokio::spawn((task.run)(end.clone()));
        }
        let health = Health::new(component.services.iter()).await;
        health.set(true).await;
        let front = pavior_gateway::front(&config, &component, StackOptions::default(), &health).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        world.address = listener.local_addr().unwrap();
        let options = ServeOptions { http1: true, ..ServeOptions::default() };
        tokio::spawn(serve_with(listener, front, options, end));
        world
    }

    /// Everything is allowed, and records are kept.
    fn prepare(&self) {
        self.decide(|_| Ok(allow()));
        let records = self.records.clone();
        self.fake("audit").on(APPEND, move |request: AppendRecordsRequest| {
            let producer = request.producer.unwrap();
            assert_eq!(producer.service, "gateway");
            assert!(!producer.epoch.is_empty());
            let last = request.events.last().map_or(0, |event| event.sequence);
            records.lock().unwrap().extend(request.events);
            Ok(AppendRecordsResponse { acknowledged_sequence: last })
        });
    }

    pub(crate) fn fake(&self, role: &str) -> &Fake {
        &self.fakes[role]
    }

    pub(crate) fn decide(
        &self,
        answer: impl Fn(DecideRequest) -> Result<Decision, Status> + Send + Sync + 'static,
    ) {
        self.fake("policy").on(DECIDE, answer);
    }

    /// Starts a service behind the real stack; port 0 for any port.
    async fn start(&self, role: &'static str, address: SocketAddr) -> SocketAddr {
        let routes = Routes::from(axum::Router::new().fallback_service(self.fakes[role].clone()));
        let stack = self.harness.stack_of(role, routes, StackOptions::default());
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = self.end.child_token();
        let options = ServeOptions { grace: Duration::from_millis(100), ..ServeOptions::default() };
        let server = tokio::spawn(serve_with(listener, stack, options, stop.clone()));
        self.running.lock().unwrap().insert(role, (address, stop, server));
        address
    }

    /// Stops a service and gives the address that it had.
    pub(crate) async fn stop(&self, role: &'static str) -> SocketAddr {
        let (address, stop, server) = self.running.lock().unwrap().remove(role).unwrap();
        stop.cancel();
        server.await.unwrap();
        address
    }

    pub(crate) async fn restart(&self, role: &'static str, address: SocketAddr) {
        self.start(role, address).await;
    }

    pub(crate) fn address_of(&self, role: &str) -> SocketAddr {
        self.running.lock().unwrap()[role].0
    }

    pub(crate) fn token(&self, subject: &str, organization: &str) -> String {
        let claims = DevClaims {
            subject: subject.to_owned(),
            organization: organization.to_owned(),
            groups: vec!["payments".to_owned()],
            ..DevClaims::default()
        };
        self.issuer.mint(&claims, time::Duration::minutes(10)).unwrap()
    }

    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    /// An HTTP/1.1 request by hand, and its whole answer.
    pub(crate) async fn http(&self, request: http::Request<Vec<u8>>) -> http::Response<bytes::Bytes> {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = request.map(|body| http_body_util::Full::new(bytes::Bytes::from(body)));
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        http::Response::from_parts(parts, body)
    }

    /// A channel with a caller's token.
    pub(crate) async fn caller(&self, subject: &str, organization: &str) -> Caller {
        let bearer = Bearer(format!("Bearer {}", self.token(subject, organization)));
        InterceptedService::new(self.channel().await, bearer)
    }

    pub(crate) async fn catalog(&self, subject: &str, organization: &str) -> CatalogServiceClient<Caller> {
        CatalogServiceClient::new(self.caller(subject, organization).await)
    }

    /// Waits for records, and gives the first `count` of them.
    pub(crate) async fn records(&self, count: usize) -> Vec<SequencedEvent> {
        let kept = self.records.clone();
        wait_for("audit records", Duration::from_secs(10), move || {
            let kept = kept.lock().unwrap().clone();
            std::future::ready(if kept.len() >= count { Ok(kept) } else { Err(kept.len()) })
        })
        .await
    }
}

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::default())
}

pub(crate) type Caller = InterceptedService<Channel, Bearer>;

#[derive(Clone)]
pub(crate) struct Bearer(pub(crate) String);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.parse().unwrap());
        Ok(request)
    }
}

pub(crate) fn allow() -> Decision {
    Decision {
        name: "decision-1".to_owned(),
        effect: Effect::Allow.into(),
        policies_digest: "digest-1".to_owned(),
        ..Decision::default()
    }
}
