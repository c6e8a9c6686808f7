//! Any driver behind gRPC.

mod calls;

use pavior_core::Fault;
use pavior_core::digest::InvalidDigest;
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use pavior_driver::{
    ApplyRequest, CallContext, DestroyRequest, Driver, DriverInfo, FailureCode, Health, InvokeRequest,
    ListRequest, ListResponse, ObserveRequest, Outcome, PinRequest, PlanRequest, ReadArtifactRequest,
    ValidateRequest,
};
use pavior_proto::pavior::driver::v1 as pb;
use pavior_rpc::{ErrorReason, Problem};
use pb::driver_service_server::{DriverService, DriverServiceServer};
use pb::pin_response::Result as PinResult;
use pb::plan_response::Result as PlanResult;
use pb::validate_response::Result as ValidateResult;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tracing::Instrument;

use crate::WireError;
use crate::artifact::{self, Parts};
use crate::convert::{
    decode_answer, decode_context, decode_lookup, decode_prior, decode_sensitive, encode_failure,
    encode_listed, encode_observation, encode_plan, optional,
};
use crate::handshake::{CAPABILITIES, common_revision, missing, numbers};
use crate::told::{Event, Told};
use crate::value::{decode, decode_resolved, encode};
use crate::{REVISIONS, schema};
use calls::{Calls, EventSink};

/// Most things in one answer: they fit into a message of 4 MiB.
const MAX_LISTED: usize = 1_000;
/// Events that may wait for a slow engine; then the driver waits.
const EVENTS: usize = 16;

type Events<T> = ReceiverStream<Result<T, Status>>;

/// The routes that serve `driver` as `pavior.driver.v1.DriverService`: give them to [`pavior_rpc::server::stack`] and
/// [`pavior_rpc::serve`], or to [`pavior_rpc::local`].
///
/// A call goes on to its end when the engine goes away: it is told to stop gracefully, never dropped half way.
#[must_use]
pub fn serve(driver: Arc<dyn Driver>) -> Routes {
    Routes::new(DriverServiceServer::new(Adapter { driver, calls: Calls::default() }))
}

struct Adapter {
    driver: Arc<dyn Driver>,
    calls: Calls,
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adapter").finish_non_exhaustive()
    }
}

/// A request that breaks the contract.
fn malformed(err: &WireError) -> Status {
    let (field, fault, description) = match err {
        WireError::Missing(field) => (*field, Fault::Required, "is missing".to_owned()),
        WireError::Meaningless(field) => (*field, Fault::Pattern, "has no meaning".to_owned()),
        WireError::Time(field) => (*field, Fault::Pattern, "is not a time".to_owned()),
        WireError::Negative(field) => (*field, Fault::OutOfRange, "must not be negative".to_owned()),
        // Which value it is, the walk through values does not know.
        other => ("value", Fault::Pattern, other.to_string()),
    };
    Problem::invalid_field(field, fault, description).into()
}

impl Adapter {
    fn described(&self) -> Result<(DriverInfo, String), Status> {
        let info = self.driver.info();
        let digest = schema::digest(&info).map_err(Problem::internal)?;
        Ok((info, digest))
    }

    /// Runs `work` beside this request and streams what it tells.
    fn begin<T: Told, W>(
        &self,
        context: Option<pb::CallContext>,
        work: W,
    ) -> Result<Response<Events<T>>, Status>
    where
        W: FnOnce(Arc<dyn Driver>, CallContext, Arc<EventSink<T>>) -> BoxFuture<'static, Outcome>,
    {
        let cancel = CancellationToken::new();
        let (context, call_id, agreed) =
            decode_context(context, cancel.clone()).map_err(|err| malformed(&err))?;
        let guard = self.calls.enter(&call_id, cancel.clone()).ok_or_else(|| {
            Status::from(Problem::invalid_field("context.call_id", Fault::Duplicate, "the call runs already"))
        })?;
        let (events, receiver) = mpsc::channel(EVENTS);
        let sink = Arc::new(EventSink::new(events.clone(), guard.call(), &agreed));
        let work = work(self.driver.clone(), context, sink);
        let run = async move {
            let mut work = work;
            let outcome = tokio::select! {
                outcome = &mut work => outcome,
                () = events.closed() => {
                    cancel.cancel();
                    work.await
                }
            };
            if events.send(told(outcome)).await.is_err() {
                tracing::debug!("nobody waits for the outcome any more");
            }
            drop(guard);
        };
        tokio::spawn(run.in_current_span());
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// The message of an outcome. Of one that cannot be sent as it is, what is true of the world all the same.
fn told<T: Told>(outcome: Outcome) -> Result<T, Status> {
    T::encode(Event::Outcome(outcome.clone()))
        .or_else(|err| T::encode(Event::Outcome(sendable::<T>(outcome, &err))))
        .map_err(|err| Problem::internal(err).into())
}

fn sendable<T: Told>(outcome: Outcome, err: &WireError) -> Outcome {
    match outcome {
        Outcome::Succeeded(success) => {
            let why = format!("the call worked, and the driver's answer cannot be sent: {err}");
            T::unsent(success.identity, why)
        }
        Outcome::Failed(mut failure) => {
            failure.message.push_str(&format!(" (the state of what is left cannot be sent: {err})"));
            if let Some(partial) = &mut failure.partial {
                partial.state = serde_json::Value::Null;
            }
            Outcome::Failed(failure)
        }
        unknown @ Outcome::Unknown { .. } => unknown,
    }
}

#[tonic::async_trait]
impl DriverService for Adapter {
    async fn handshake(
        &self,
        request: Request<pb::HandshakeRequest>,
    ) -> Result<Response<pb::HandshakeResponse>, Status> {
        let pb::HandshakeRequest {
            engine,
            engine_version,
            revisions,
            capabilities: _,
            required_capabilities,
        } = request.into_inner();
        let refuse = |message| Status::from(Problem::precondition(ErrorReason::InvalidState, message));
        let Some(revision) = common_revision(&revisions) else {
            return Err(refuse(format!(
                "the engine speaks revisions {revisions:?} of the contract, and this driver {REVISIONS:?}"
            )));
        };
        if let Some(lacking) = missing(&required_capabilities) {
            return Err(refuse(format!("the engine needs capabilities that are not there: {lacking}")));
        }
        let (info, schema_digest) = self.described()?;
        tracing::debug!(engine, engine_version, revision, driver = info.id, "shook hands");
        Ok(Response::new(pb::HandshakeResponse {
            revision,
            driver_id: info.id,
            driver_version: info.version,
            capabilities: numbers(CAPABILITIES),
            required_capabilities: Vec::new(),
            schema_digest,
        }))
    }

    async fn get_schema(
        &self,
        _: Request<pb::GetSchemaRequest>,
    ) -> Result<Response<pb::GetSchemaResponse>, Status> {
        let (info, schema_digest) = self.described()?;
        let types = info.types.into_iter().map(schema::encode).collect();
        Ok(Response::new(pb::GetSchemaResponse { types, schema_digest }))
    }

    async fn validate(
        &self,
        request: Request<pb::ValidateRequest>,
    ) -> Result<Response<pb::ValidateResponse>, Status> {
        let pb::ValidateRequest { resource_type_id: resource_type, inputs } = request.into_inner();
        let inputs = decode(inputs).map_err(|err| malformed(&err))?;
        let result = match self.driver.validate(ValidateRequest { resource_type, inputs }).await {
            Ok(inputs) => ValidateResult::Inputs(encode(&inputs).map_err(Problem::internal)?),
            Err(violations) => ValidateResult::Violations(pb::Violations {
                violations: violations
                    .into_iter()
                    .map(|pavior_driver::Violation { path, message }| pb::Violation { path, message })
                    .collect(),
            }),
        };
        Ok(Response::new(pb::ValidateResponse { result: Some(result) }))
    }

    async fn plan(&self, request: Request<pb::PlanRequest>) -> Result<Response<pb::PlanResponse>, Status> {
        let pb::PlanRequest { resource_type_id: resource_type, prior, desired } = request.into_inner();
        let prior = optional(prior, decode_prior).map_err(|err| malformed(&err))?;
        let desired = optional(desired, |value| decode(Some(value))).map_err(|err| malformed(&err))?;
        let result = match self.driver.plan(PlanRequest { resource_type, prior, desired }).await {
            Ok(plan) => PlanResult::Plan(encode_plan(&plan).map_err(Problem::internal)?),
            Err(failure) => PlanResult::Failure(encode_failure(&failure).map_err(Problem::internal)?),
        };
        Ok(Response::new(pb::PlanResponse { result: Some(result) }))
    }

    async fn pin(&self, request: Request<pb::PinRequest>) -> Result<Response<pb::PinResponse>, Status> {
        let pb::PinRequest {
            organization_id: organization,
            resource_type_id: resource_type,
            identity,
            action_id: action,
            inputs,
        } = request.into_inner();
        let inputs = decode(inputs).map_err(|err| malformed(&err))?;
        let action = (!action.is_empty()).then_some((identity, action));
        let request = PinRequest { organization, resource_type, action, inputs };
        let result = match self.driver.pin(request).await {
            Ok(pinned) => PinResult::Pinned(encode(&pinned).map_err(Problem::internal)?),
            Err(failure) => PinResult::Failure(encode_failure(&failure).map_err(Problem::internal)?),
        };
        Ok(Response::new(pb::PinResponse { result: Some(result) }))
    }

    type ApplyStream = Events<pb::ApplyResponse>;

    async fn apply(&self, request: Request<pb::ApplyRequest>) -> Result<Response<Self::ApplyStream>, Status> {
        let pb::ApplyRequest {
            context,
            resource_type_id: resource_type,
            prior,
            inputs,
            sensitive,
            declaration_digest,
        } = request.into_inner();
        let request = ApplyRequest {
            resource_type,
            prior: optional(prior, decode_prior).map_err(|err| malformed(&err))?,
            inputs: decode_resolved(inputs).map_err(|err| malformed(&err))?,
            sensitive: decode_sensitive(sensitive).map_err(|err| malformed(&err))?,
            declaration_digest,
        };
        self.begin(context, |driver, context, sink| {
            Box::pin(async move { driver.apply(&context, request, &*sink).await })
        })
    }

    async fn observe(
        &self,
        request: Request<pb::ObserveRequest>,
    ) -> Result<Response<pb::ObserveResponse>, Status> {
        let pb::ObserveRequest { context, resource_type_id: resource_type, lookup } = request.into_inner();
        let cancel = CancellationToken::new();
        let (context, _, _) = decode_context(context, cancel.clone()).map_err(|err| malformed(&err))?;
        let lookup = decode_lookup(lookup).map_err(|err| malformed(&err))?;
        // When the engine stops waiting this future is dropped, and what the driver has spawned is told so.
        let _stop = cancel.drop_guard();
        let observation = self.driver.observe(&context, ObserveRequest { resource_type, lookup }).await;
        Ok(Response::new(encode_observation(observation).map_err(Problem::internal)?))
    }

    type DestroyStream = Events<pb::DestroyResponse>;

    async fn destroy(
        &self,
        request: Request<pb::DestroyRequest>,
    ) -> Result<Response<Self::DestroyStream>, Status> {
        let pb::DestroyRequest { context, resource_type_id: resource_type, lookup, state } =
            request.into_inner();
        let request = DestroyRequest {
            resource_type,
            lookup: decode_lookup(lookup).map_err(|err| malformed(&err))?,
            state: decode(state).map_err(|err| malformed(&err))?,
        };
        self.begin(context, |driver, context, sink| {
            Box::pin(async move { driver.destroy(&context, request, &*sink).await })
        })
    }

    type InvokeStream = Events<pb::InvokeResponse>;

    async fn invoke(
        &self,
        request: Request<pb::InvokeRequest>,
    ) -> Result<Response<Self::InvokeStream>, Status> {
        let pb::InvokeRequest {
            context,
            resource_type_id: resource_type,
            identity,
            action_id: action,
            arguments,
            sensitive,
            state,
        } = request.into_inner();
        let request = InvokeRequest {
            resource_type,
            identity,
            action,
            arguments: decode_resolved(arguments).map_err(|err| malformed(&err))?,
            sensitive: decode_sensitive(sensitive).map_err(|err| malformed(&err))?,
            state: decode(state).map_err(|err| malformed(&err))?,
        };
        self.begin(context, |driver, context, sink| {
            Box::pin(async move { driver.invoke(&context, request, &*sink).await })
        })
    }

    async fn acknowledge(
        &self,
        request: Request<pb::AcknowledgeRequest>,
    ) -> Result<Response<pb::AcknowledgeResponse>, Status> {
        let pb::AcknowledgeRequest { call_id, sequence, result } = request.into_inner();
        self.calls.acknowledge(&call_id, sequence, decode_answer(result));
        Ok(Response::new(pb::AcknowledgeResponse {}))
    }

    async fn cancel(
        &self,
        request: Request<pb::CancelRequest>,
    ) -> Result<Response<pb::CancelResponse>, Status> {
        let found = self.calls.cancel(&request.into_inner().call_id);
        Ok(Response::new(pb::CancelResponse { found }))
    }

    async fn list(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        let pb::ListRequest { page_size, page_token } = request.into_inner();
        let page_size = usize::try_from(page_size).ok().filter(|size| *size > 0);
        let page_size = page_size
            .ok_or_else(|| Problem::invalid_field("page_size", Fault::OutOfRange, "must be at least 1"))?;
        let request = ListRequest { page_size: page_size.min(MAX_LISTED), page_token };
        let ListResponse { resources, next_page_token } =
            self.driver.list(request).await.map_err(|failure| match failure.code {
                FailureCode::Unsupported => Problem::unimplemented("List"),
                // The size has been seen to: only the token is left to refuse.
                FailureCode::InvalidArgument => Problem::invalid_reason(
                    ErrorReason::InvalidPageToken,
                    "page_token",
                    Fault::Token,
                    failure.message,
                ),
                _ => Problem::unavailable(failure.message),
            })?;
        let resources = resources.into_iter().map(encode_listed).collect();
        Ok(Response::new(pb::ListResponse { resources, next_page_token }))
    }

    type ReadArtifactStream = Parts;

    async fn read_artifact(
        &self,
        request: Request<pb::ReadArtifactRequest>,
    ) -> Result<Response<Self::ReadArtifactStream>, Status> {
        let pb::ReadArtifactRequest { organization_id: organization, digest } = request.into_inner();
        let digest = digest.parse();
        let digest = digest.map_err(|err: InvalidDigest| {
            Problem::invalid_field("digest", Fault::Pattern, err.to_string())
        })?;
        let opened = self.driver.read_artifact(ReadArtifactRequest { organization, digest }).await;
        Ok(Response::new(artifact::encode(opened)))
    }

    async fn health(&self, _: Request<pb::HealthRequest>) -> Result<Response<pb::HealthResponse>, Status> {
        let (_, schema_digest) = self.described()?;
        let (state, message) = match self.driver.health().await {
            Health::Ok => (pb::health_response::State::Ok, String::new()),
            Health::Degraded(what) => (pb::health_response::State::Degraded, what),
            Health::Down(why) => (pb::health_response::State::Down, why),
        };
        Ok(Response::new(pb::HealthResponse { state: state.into(), message, schema_digest }))
    }
}
