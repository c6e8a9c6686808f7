//! Drivers that break the contract, or that know less of it than this crate does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::stream::{self, BoxStream, StreamExt};
use pavior_driver::{Driver, FailureCode, MemorySink, Outcome, SinkClosed};
use pavior_driver_grpc::{RemoteDriver, RemoteOptions};
use pavior_proto::pavior::driver::v1 as pb;
use pb::apply_response::{Event, Outcome as Ended};
use pb::driver_service_server::{DriverService, DriverServiceServer};
use serde_json::json;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};

use crate::harness::{SOON, Seen, apply, apply_request, connect, context, invoke_request, stacked};

type Answer = Result<Vec<Result<pb::ApplyResponse, Status>>, Status>;

/// Answers every apply with the same.
#[derive(Clone)]
pub(crate) struct Rogue {
    pub(crate) handshake: pb::HandshakeResponse,
    pub(crate) digest: String,
    apply: Arc<dyn Fn() -> Answer + Send + Sync>,
    /// The stream stays open after these events.
    hangs: bool,
    pub(crate) applied: Arc<AtomicU32>,
}

impl Rogue {
    pub(crate) fn new(apply: impl Fn() -> Answer + Send + Sync + 'static) -> Self {
        let handshake = pb::HandshakeResponse {
            revision: 1,
            driver_id: "rogue".to_owned(),
            driver_version: "1.0.0".to_owned(),
            capabilities: Vec::new(),
            required_capabilities: Vec::new(),
            schema_digest: "d".to_owned(),
        };
        Self {
            handshake,
            digest: "d".to_owned(),
            apply: Arc::new(apply),
            hangs: false,
            applied: Arc::default(),
        }
    }

    pub(crate) fn routes(self) -> Routes {
        Routes::new(DriverServiceServer::new(self))
    }

    async fn remote(self) -> RemoteDriver {
        connect(stacked(self.routes())).await
    }
}

fn unasked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not for this test"))
}

#[tonic::async_trait]
impl DriverService for Rogue {
    type ApplyStream = BoxStream<'static, Result<pb::ApplyResponse, Status>>;
    type DestroyStream = BoxStream<'static, Result<pb::DestroyResponse, Status>>;
    type InvokeStream = BoxStream<'static, Result<pb::InvokeResponse, Status>>;
    type ReadArtifactStream = BoxStream<'static, Result<pb::ReadArtifactResponse, Status>>;

    async fn handshake(
        &self,
        _: Request<pb::HandshakeRequest>,
    ) -> Result<Response<pb::HandshakeResponse>, Status> {
        Ok(Response::new(self.handshake.clone()))
    }
    async fn get_schema(
        &self,
        _: Request<pb::GetSchemaRequest>,
    ) -> Result<Response<pb::GetSchemaResponse>, Status> {
        let schema_digest = self.digest.clone();
        Ok(Response::new(pb::GetSchemaResponse { types: Vec::new(), schema_digest }))
    }
    async fn apply(&self, _: Request<pb::ApplyRequest>) -> Result<Response<Self::ApplyStream>, Status> {
        self.applied.fetch_add(1, Ordering::SeqCst);
        let events = stream::iter((self.apply)()?);
        Ok(Response::new(if self.hangs { events.chain(stream::pending()).boxed() } else { events.boxed() }))
    }
    async fn validate(
        &self,
        _: Request<pb::ValidateRequest>,
    ) -> Result<Response<pb::ValidateResponse>, Status> {
        unasked()
    }
    async fn plan(&self, _: Request<pb::PlanRequest>) -> Result<Response<pb::PlanResponse>, Status> {
        unasked()
    }
    async fn pin(&self, _: Request<pb::PinRequest>) -> Result<Response<pb::PinResponse>, Status> {
        Err(Status::internal("must not be asked without the capability"))
    }
    async fn observe(&self, _: Request<pb::ObserveRequest>) -> Result<Response<pb::ObserveResponse>, Status> {
        unasked()
    }
    async fn destroy(&self, _: Request<pb::DestroyRequest>) -> Result<Response<Self::DestroyStream>, Status> {
        unasked()
    }
    async fn invoke(&self, _: Request<pb::InvokeRequest>) -> Result<Response<Self::InvokeStream>, Status> {
        Err(Status::internal("must not be asked without the capability"))
    }
    async fn acknowledge(
        &self,
        _: Request<pb::AcknowledgeRequest>,
    ) -> Result<Response<pb::AcknowledgeResponse>, Status> {
        Err(Status::internal("must not be asked without the capability"))
    }
    async fn cancel(&self, _: Request<pb::CancelRequest>) -> Result<Response<pb::CancelResponse>, Status> {
        Err(Status::internal("must not be asked without the capability"))
    }
    async fn list(&self, _: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        unasked()
    }
    async fn read_artifact(
        &self,
        _: Request<pb::ReadArtifactRequest>,
    ) -> Result<Response<Self::ReadArtifactStream>, Status> {
        unasked()
    }
    async fn health(&self, _: Request<pb::HealthRequest>) -> Result<Response<pb::HealthResponse>, Status> {
        unasked()
    }
}

fn event(event: Event) -> Result<pb::ApplyResponse, Status> {
    Ok(pb::ApplyResponse { event: Some(event) })
}

fn progress() -> Result<pb::ApplyResponse, Status> {
    event(Event::Progress(pb::Progress { message: "begun".to_owned(), percent: None }))
}

async fn outcome_of(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Outcome {
    let rogue = Rogue::new(answer);
    let applied = rogue.applied.clone();
    let remote = rogue.remote().await;
    let outcome = apply(&remote, "rogue", &MemorySink::new()).await;
    assert_eq!(applied.load(Ordering::SeqCst), 1, "an apply must never be repeated by itself");
    outcome
}

fn assert_unknown(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_stream_without_an_outcome_is_unknown() {
    assert_unknown(&outcome_of(|| Ok(vec![progress()])).await);
    assert_unknown(&outcome_of(|| Ok(Vec::new())).await);
}

#[tokio::test]
async fn a_status_says_that_nothing_began_only_before_the_first_event() {
    for (code, expected) in [
        (Code::InvalidArgument, FailureCode::InvalidArgument),
        (Code::Unimplemented, FailureCode::Unsupported),
    ] {
        let outcome = outcome_of(move || Err(Status::new(code, "no"))).await;
        assert_eq!(outcome.failure().unwrap().code, expected);
        assert_unknown(&outcome_of(move || Ok(vec![progress(), Err(Status::new(code, "no"))])).await);
    }
    for code in [Code::Unavailable, Code::Internal, Code::Unknown, Code::DeadlineExceeded, Code::NotFound] {
        assert_unknown(&outcome_of(move || Err(Status::new(code, "no"))).await);
    }
}

#[tokio::test]
async fn an_outcome_that_cannot_be_read_is_unknown() {
    let malformed = |result| {
        outcome_of(move || Ok(vec![event(Event::Outcome(Ended { result: Option::clone(&result) }))]))
    };
    assert_unknown(&malformed(None).await);
    // A share of the work that cannot be is malformed, as is an outcome without a result.
    let progress = |percent| {
        outcome_of(move || {
            let progress = pb::Progress { message: "x".to_owned(), percent: Some(percent) };
            let result = Some(pb::apply_response::outcome::Result::Failed(pb::Failure::default()));
            Ok(vec![event(Event::Progress(progress)), event(Event::Outcome(Ended { result }))])
        })
    };
    assert!(progress(0).await.failure().is_some());
    let Outcome::Unknown { message } = progress(-1).await else { panic!("it is taken") };
    assert_eq!(message, "driver `rogue` breaks its contract: `progress.percent` must not be negative");
    // A secret where only plain outputs may stand is not taken over.
    let secret = pb::Secret { value: Some(pb::secret::Value::Text("hunter22".to_owned())) };
    let outputs = pb::Value { kind: Some(pb::value::Kind::SecretValue(secret)) };
    let resource = pb::Resource { outputs: Some(outputs), ..pb::Resource::default() };
    let outcome = malformed(Some(pb::apply_response::outcome::Result::Succeeded(resource))).await;
    assert_unknown(&outcome);
    assert!(!format!("{outcome:?}").contains("hunter22"));
}

#[tokio::test]
async fn what_comes_after_the_outcome_and_what_is_not_known_is_skipped() {
    let outcome = outcome_of(|| {
        let failure = pb::Failure { code: 77, message: "x".to_owned(), ..pb::Failure::default() };
        let result = Some(pb::apply_response::outcome::Result::Failed(failure));
        Ok(vec![
            Ok(pb::ApplyResponse { event: None }),
            event(Event::Outcome(Ended { result })),
            Err(Status::internal("too late")),
        ])
    })
    .await;
    assert_eq!(outcome.failure().unwrap().code, FailureCode::Internal);
}

#[tokio::test]
async fn a_driver_without_capabilities_is_asked_for_none() {
    let heartbeat = || {
        let heartbeat = event(Event::Heartbeat(pb::Heartbeat { sequence: 1 }));
        Ok(vec![heartbeat])
    };
    let mut rogue = Rogue::new(heartbeat);
    rogue.hangs = true;
    let applied = rogue.applied.clone();
    let remote = rogue.remote().await;
    // Cancel closes the stream.
    let (sink, mut events) = Seen::new();
    let context = context("plain");
    let apply = remote.apply(&context, apply_request(json!({})), &sink);
    let cancel = async {
        events.recv().await.unwrap();
        context.cancel.cancel();
    };
    let (outcome, ()) = timeout(SOON, async { tokio::join!(apply, cancel) }).await.unwrap();
    assert_unknown(&outcome);
    assert_eq!(applied.load(Ordering::SeqCst), 1);
    // Cancelled before it began, it does not begin.
    let outcome = remote.apply(&context, apply_request(json!({})), &sink).await;
    assert_eq!(outcome.failure().unwrap().code, FailureCode::Cancelled);
    assert_eq!(applied.load(Ordering::SeqCst), 1);
    let request = invoke_request("x", json!({}));
    let mut fresh = context.clone();
    fresh.cancel = tokio_util::sync::CancellationToken::new();
    let outcome = remote.invoke(&fresh, request, &sink).await;
    assert_eq!(outcome.failure().unwrap().code, FailureCode::Unsupported);
}

#[tokio::test]
async fn a_lost_claim_ends_a_call_that_cannot_be_cancelled() {
    let mut rogue = Rogue::new(|| Ok(vec![event(Event::Heartbeat(pb::Heartbeat { sequence: 1 }))]));
    rogue.hangs = true;
    let options = RemoteOptions::default();
    let remote = RemoteDriver::connect(stacked(rogue.routes()), options).await.unwrap();
    let (mut sink, _events) = Seen::new();
    sink.closed = Some(SinkClosed::ClaimLost);
    assert_unknown(&apply(&remote, "zombie", &sink).await);
}
