//! A service whose answers a test decides, and ways to reach it.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{Stream, StreamExt};
use pavior_proto::google::rpc;
use pavior_proto::pavior::audit::internal::v1::recorder_service_client::RecorderServiceClient;
use pavior_proto::pavior::audit::internal::v1::recorder_service_server::{
    RecorderService, RecorderServiceServer,
};
use pavior_proto::pavior::audit::internal::v1::*;
use pavior_proto::pavior::audit::v1::audit_service_client::AuditServiceClient;
use pavior_proto::pavior::audit::v1::audit_service_server::{AuditService, AuditServiceServer};
use pavior_proto::pavior::audit::v1::*;
use pavior_rpc::{Stack, StackOptions, Transport, server};
use prost::{Message, Name};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

type Handler = Arc<
    dyn Fn(Request<GetAuditRecordRequest>) -> BoxFuture<'static, Result<AuditRecord, Status>> + Send + Sync,
>;
type Events = Pin<Box<dyn Stream<Item = Result<WatchAuditRecordsResponse, Status>> + Send>>;
type Watcher = Arc<dyn Fn() -> Result<Events, Status> + Send + Sync>;

/// The acknowledged number.
pub(crate) type Appended = Result<i64, Status>;
type Appender = Arc<dyn Fn(AppendRecordsRequest) -> Appended + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Fake {
    get: Handler,
    watch: Watcher,
    append: Appender,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    /// Answers `GetAuditRecord` with this, and streams without end.
    pub(crate) fn get<F, Fut>(get: F) -> Self
    where
        F: Fn(Request<GetAuditRecordRequest>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<AuditRecord, Status>> + Send + 'static,
    {
        Self {
            get: Arc::new(move |request| Box::pin(get(request))),
            watch: Arc::new(|| Ok(futures::stream::pending().boxed())),
            append: Arc::new(|request| Ok(request.events.last().map_or(0, |event| event.sequence))),
        }
    }

    /// Streams this.
    pub(crate) fn watch(watch: impl Fn() -> Result<Events, Status> + Send + Sync + 'static) -> Self {
        Self { watch: Arc::new(watch), ..Self::get(|_| async { Ok(AuditRecord::default()) }) }
    }

    /// Answers `AppendRecords` with this.
    pub(crate) fn appending(
        self,
        append: impl Fn(AppendRecordsRequest) -> Appended + Send + Sync + 'static,
    ) -> Self {
        Self { append: Arc::new(append), ..self }
    }

    pub(crate) fn routes(self) -> Routes {
        Routes::new(AuditServiceServer::new(self.clone())).add_service(RecorderServiceServer::new(self))
    }

    pub(crate) fn stack(self) -> Stack {
        server::stack(self.routes(), StackOptions::default())
    }

    pub(crate) fn client(self) -> AuditServiceClient<Transport> {
        AuditServiceClient::new(pavior_rpc::local(self.stack()))
    }

    pub(crate) fn recorder(self) -> RecorderServiceClient<Transport> {
        RecorderServiceClient::new(pavior_rpc::local(self.stack()))
    }
}

#[tonic::async_trait]
impl AuditService for Fake {
    type WatchAuditRecordsStream = Events;

    async fn get_audit_record(
        &self,
        request: Request<GetAuditRecordRequest>,
    ) -> Result<Response<AuditRecord>, Status> {
        (self.get)(request).await.map(Response::new)
    }

    async fn list_audit_records(
        &self,
        _: Request<ListAuditRecordsRequest>,
    ) -> Result<Response<ListAuditRecordsResponse>, Status> {
        Err(Status::not_found("bare"))
    }

    async fn watch_audit_records(
        &self,
        _: Request<WatchAuditRecordsRequest>,
    ) -> Result<Response<Events>, Status> {
        (self.watch)().map(Response::new)
    }

    async fn get_audit_checkpoint(
        &self,
        _: Request<GetAuditCheckpointRequest>,
    ) -> Result<Response<AuditCheckpoint>, Status> {
        Err(Status::internal("relation `secrets` does not exist"))
    }

    async fn prove_inclusion(
        &self,
        _: Request<ProveInclusionRequest>,
    ) -> Result<Response<InclusionProof>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn prove_consistency(
        &self,
        _: Request<ProveConsistencyRequest>,
    ) -> Result<Response<ConsistencyProof>, Status> {
        Err(Status::cancelled("Timeout expired"))
    }

    async fn get_audit_tile(&self, _: Request<GetAuditTileRequest>) -> Result<Response<AuditTile>, Status> {
        panic!("secret in a panic")
    }
}

#[tonic::async_trait]
impl RecorderService for Fake {
    async fn get_producer_state(
        &self,
        _: Request<GetProducerStateRequest>,
    ) -> Result<Response<ProducerState>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn append_records(
        &self,
        request: Request<AppendRecordsRequest>,
    ) -> Result<Response<AppendRecordsResponse>, Status> {
        (self.get)(Request::new(GetAuditRecordRequest::default())).await?;
        let acknowledged_sequence = (self.append)(request.into_inner())?;
        Ok(Response::new(AppendRecordsResponse { acknowledged_sequence }))
    }
}

/// Serves on a free port until dropped.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub(crate) async fn serve(stack: Stack, options: server::ServeOptions) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let options = server::ServeOptions { grace: Duration::from_secs(5), ..options };
    let task = tokio::spawn(server::serve_with(listener, stack, options, shutdown.clone()));
    Served { address, shutdown, task }
}

/// How many `ErrorInfo` details the status carries.
pub(crate) fn infos(status: &Status) -> usize {
    let details = rpc::Status::decode(status.details()).unwrap().details;
    details.iter().filter(|detail| detail.type_url == rpc::ErrorInfo::type_url()).count()
}

pub(crate) fn get() -> GetAuditRecordRequest {
    GetAuditRecordRequest { name: "organizations/acme/auditRecords/1".into() }
}
