//! A driver behind gRPC, seen from the engine.

mod connect;
mod running;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pavior_core::clock::{Clock, SystemClock};
use pavior_core::id_gen::{IdGen, SystemIds};
use pavior_driver::{
    ApplyRequest, ArtifactContent, CallContext, DestroyRequest, Driver, DriverInfo, Failure, FailureCode,
    Health, InvokeRequest, ListRequest, ListResponse, Observation, ObserveRequest, Outcome, PinRequest,
    PlanRequest, PlanResponse, ReadArtifactRequest, Sink, Success, ValidateRequest, Violation,
};
use pavior_proto::pavior::driver::v1 as pb;
use pavior_rpc::Transport;
use pb::driver_service_client::DriverServiceClient;
use pb::pin_response::Result as PinResult;
use pb::plan_response::Result as PlanResult;
use pb::validate_response::Result as ValidateResult;
use serde_json::Value;
use tonic::{Code, Request, Status};

use crate::artifact::{self, Broken};
use crate::convert::{
    decode_failure, decode_listed, decode_observation, decode_plan, encode_context, encode_lookup,
    encode_prior, encode_sensitive, optional,
};
use crate::handshake::Agreement;
use crate::value::{decode, encode, encode_resolved};
use crate::{ConnectError, WireError};
use running::Running;

/// How the engine presents itself, and what it does when a driver misbehaves.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// The engine's semantic version, for the driver's logs.
    pub engine_version: String,
    /// How long a driver may go on after it was told to stop; then its stream is closed and the outcome unknown.
    pub cancel_grace: Duration,
    /// Masks secrets of the inputs in logs, progress and messages, should the driver have let them through. Off in
    /// the conformance kit, which has to see the leak.
    pub redact: bool,
    /// Against which leases are measured.
    pub clock: Arc<dyn Clock>,
    /// Where ids of calls come from.
    pub ids: Arc<dyn IdGen>,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            cancel_grace: Duration::from_secs(30),
            redact: true,
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
        }
    }
}

/// A driver behind gRPC. Cheap to clone; calls run beside each other.
///
/// Calls that only read are repeated by the transport while the driver is away. Calls that touch the world are sent
/// once: what became of them is the outcome's to say.
#[derive(Clone)]
pub struct RemoteDriver {
    client: DriverServiceClient<Transport>,
    info: Arc<DriverInfo>,
    digest: Arc<str>,
    agreed: Arc<Agreement>,
    options: RemoteOptions,
}

impl fmt::Debug for RemoteDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteDriver")
            .field("id", &self.info.id)
            .field("version", &self.info.version)
            .field("agreed", &self.agreed)
            .finish_non_exhaustive()
    }
}

impl RemoteDriver {
    /// Shakes hands with the driver behind `transport` and reads its schema, which is kept.
    ///
    /// # Errors
    /// It cannot be reached, there is no common revision or a required capability is missing, or what it says about
    /// itself is malformed.
    pub async fn connect(transport: Transport, options: RemoteOptions) -> Result<Self, ConnectError> {
        connect::connect(DriverServiceClient::new(transport), options).await
    }

    /// As [`RemoteDriver::connect`], over the network: `http://host:port`, or `https://…` with TLS settings.
    ///
    /// # Errors
    /// As [`RemoteDriver::connect`], or the endpoint cannot be used.
    pub async fn connect_endpoint(
        endpoint: &str,
        tls: Option<pavior_rpc::ClientTls>,
        options: RemoteOptions,
    ) -> Result<Self, ConnectError> {
        pavior_rpc::transport::check_endpoint(endpoint, tls.as_ref())?;
        Self::connect(pavior_rpc::remote(endpoint, tls), options).await
    }

    /// The revision of the contract that was agreed on.
    #[must_use]
    pub fn revision(&self) -> i32 {
        self.agreed.revision
    }

    fn call_id(&self) -> String {
        self.options.ids.uuid().to_string()
    }

    /// The time until the lease ends; `None` without one, zero when it is over.
    fn lease(&self, context: &CallContext) -> Option<Duration> {
        let end = context.lease_expire_time?;
        Some(Duration::try_from(end - self.options.clock.now()).unwrap_or(Duration::ZERO))
    }

    async fn try_validate(&self, request: ValidateRequest) -> Result<ValidateResult, String> {
        let ValidateRequest { resource_type, inputs } = request;
        let inputs = Some(encode(&inputs).map_err(|err| err.to_string())?);
        let sent = self
            .client
            .clone()
            .validate(pb::ValidateRequest { resource_type_id: resource_type, inputs })
            .await;
        let answer = sent.map_err(|status| self.no_answer(&status))?.into_inner();
        answer.result.ok_or_else(|| self.malformed(&WireError::Missing("result")))
    }

    async fn try_observe(
        &self,
        context: &CallContext,
        request: ObserveRequest,
    ) -> Result<Observation, String> {
        let ObserveRequest { resource_type, lookup } = request;
        let mut request = Request::new(pb::ObserveRequest {
            context: Some(encode_context(context, &self.call_id(), &self.agreed)),
            resource_type_id: resource_type,
            lookup: Some(encode_lookup(lookup)),
        });
        running::trace(&mut request, context);
        if let Some(left) = self.lease(context) {
            request.set_timeout(left);
        }
        let mut client = self.client.clone();
        let sent = tokio::select! {
            sent = client.observe(request) => sent,
            // Nothing has to be tidied up: it is enough to stop waiting. After a cancelled call the engine looks with
            // the same context what became of it, so a cancel from before is none of this look.
            () = context.cancel.cancelled(), if !context.cancel.is_cancelled() => {
                return Err("cancelled".to_owned());
            }
        };
        let answer = sent.map_err(|status| self.no_answer(&status))?.into_inner();
        decode_observation(answer).map_err(|err| self.malformed(&err))
    }

    fn no_answer(&self, status: &Status) -> String {
        format!("driver `{}` does not answer: {}", self.info.id, shown(status))
    }

    fn malformed(&self, err: &WireError) -> String {
        format!("driver `{}` breaks its contract: {err}", self.info.id)
    }

    /// The reason why a call that touches the world must not begin.
    fn refused_here(&self, context: &CallContext) -> Option<Failure> {
        if context.cancel.is_cancelled() && !self.agreed.can(pb::Capability::Cancel) {
            return Some(Failure::new(FailureCode::Cancelled, "cancelled before the call began"));
        }
        let over = self.lease(context).is_some_and(|left| left.is_zero());
        over.then(|| Failure::new(FailureCode::Timeout, "the lease ended before the call began"))
    }
}

/// What a request could not be made of: nothing was begun.
fn unsendable(err: &WireError) -> Outcome {
    Outcome::failed(FailureCode::InvalidArgument, err.to_string())
}

/// A status in a sentence for people; never the details.
fn shown(status: &Status) -> String {
    match status.message() {
        "" => format!("{:?}", status.code()),
        message => message.to_owned(),
    }
}

/// Only these say that nothing was begun.
fn refusal(status: &Status) -> Option<FailureCode> {
    match status.code() {
        Code::InvalidArgument => Some(FailureCode::InvalidArgument),
        Code::Unimplemented => Some(FailureCode::Unsupported),
        _ => None,
    }
}

#[async_trait]
impl Driver for RemoteDriver {
    fn info(&self) -> DriverInfo {
        DriverInfo::clone(&self.info)
    }

    async fn validate(&self, request: ValidateRequest) -> Result<Value, Vec<Violation>> {
        let whole = |message| vec![Violation { path: String::new(), message }];
        match self.try_validate(request).await.map_err(whole)? {
            ValidateResult::Inputs(inputs) => decode(Some(inputs)).map_err(|err| whole(self.malformed(&err))),
            ValidateResult::Violations(pb::Violations { violations }) if violations.is_empty() => {
                Err(whole("the inputs are not valid".to_owned()))
            }
            ValidateResult::Violations(pb::Violations { violations }) => Err(violations
                .into_iter()
                .map(|pb::Violation { path, message }| Violation { path, message })
                .collect()),
        }
    }

    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure> {
        let PlanRequest { resource_type, prior, desired } = request;
        let unsendable = |err: WireError| Failure::new(FailureCode::InvalidArgument, err.to_string());
        let prior = optional(prior.as_ref(), encode_prior).map_err(unsendable)?;
        let desired = optional(desired.as_ref(), encode).map_err(unsendable)?;
        let sent = self
            .client
            .clone()
            .plan(pb::PlanRequest { resource_type_id: resource_type, prior, desired })
            .await;
        let answer = sent.map_err(|status| {
            let code = refusal(&status).unwrap_or(FailureCode::Unavailable);
            Failure::new(code, self.no_answer(&status))
        })?;
        let malformed = |err: WireError| Failure::new(FailureCode::Internal, self.malformed(&err));
        match answer.into_inner().result {
            Some(PlanResult::Plan(plan)) => decode_plan(plan).map_err(malformed),
            Some(PlanResult::Failure(failure)) => Err(decode_failure(failure).map_err(malformed)?),
            None => Err(malformed(WireError::Missing("result"))),
        }
    }

    async fn pin(&self, request: PinRequest) -> Result<Value, Failure> {
        if !self.agreed.can(pb::Capability::Pin) {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        let PinRequest { organization, resource_type, action, inputs } = request;
        let unsendable = |err: WireError| Failure::new(FailureCode::InvalidArgument, err.to_string());
        let inputs = Some(encode(&inputs).map_err(unsendable)?);
        let (identity, action) = action.unwrap_or_default();
        let request = pb::PinRequest {
            organization_id: organization,
            resource_type_id: resource_type,
            identity,
            action_id: action,
            inputs,
        };
        let answer = self.client.clone().pin(request).await.map_err(|status| {
            let code = refusal(&status).unwrap_or(FailureCode::Unavailable);
            Failure::new(code, self.no_answer(&status))
        })?;
        let malformed = |err: WireError| Failure::new(FailureCode::Internal, self.malformed(&err));
        match answer.into_inner().result {
            Some(PinResult::Pinned(pinned)) => decode(Some(pinned)).map_err(malformed),
            Some(PinResult::Failure(failure)) => Err(decode_failure(failure).map_err(malformed)?),
            None => Err(malformed(WireError::Missing("result"))),
        }
    }

    async fn apply(&self, context: &CallContext, request: ApplyRequest, sink: &dyn Sink) -> Outcome {
        if let Some(failure) = self.refused_here(context) {
            return failure.into();
        }
        let ApplyRequest { resource_type, prior, inputs, sensitive, declaration_digest } = request;
        let call = Running::new(self, context, sink, &sensitive);
        let encoded = encode_resolved(&inputs, &sensitive)
            .and_then(|inputs| Ok((inputs, optional(prior.as_ref(), encode_prior)?)));
        let (inputs, prior) = match encoded {
            Ok(encoded) => encoded,
            Err(err) => return unsendable(&err),
        };
        let request = call.request(pb::ApplyRequest {
            context: Some(call.context()),
            resource_type_id: resource_type,
            prior,
            inputs: Some(inputs),
            sensitive: encode_sensitive(&sensitive),
            declaration_digest,
        });
        let mut client = self.client.clone();
        call.run(client.apply(request)).await
    }

    async fn observe(&self, context: &CallContext, request: ObserveRequest) -> Observation {
        match self.try_observe(context, request).await {
            Ok(observation) => observation,
            Err(message) => Observation::Indeterminate { message },
        }
    }

    async fn destroy(&self, context: &CallContext, request: DestroyRequest, sink: &dyn Sink) -> Outcome {
        if let Some(failure) = self.refused_here(context) {
            return failure.into();
        }
        let DestroyRequest { resource_type, lookup, state } = request;
        let call = Running::new(self, context, sink, &[]);
        let state = match encode(&state) {
            Ok(state) => Some(state),
            Err(err) => return unsendable(&err),
        };
        let request = call.request(pb::DestroyRequest {
            context: Some(call.context()),
            resource_type_id: resource_type,
            lookup: Some(encode_lookup(lookup)),
            state,
        });
        let mut client = self.client.clone();
        call.run(client.destroy(request)).await
    }

    async fn invoke(&self, context: &CallContext, request: InvokeRequest, sink: &dyn Sink) -> Outcome {
        if let Some(failure) = self.refused_here(context) {
            return failure.into();
        }
        let InvokeRequest { resource_type, identity, action, arguments, sensitive, state } = request;
        if !self.agreed.can(pb::Capability::Invoke) {
            let message = format!("`{resource_type}` has no action `{action}`");
            return Outcome::failed(FailureCode::Unsupported, message);
        }
        let call = Running::new(self, context, sink, &sensitive);
        let encoded =
            encode_resolved(&arguments, &sensitive).and_then(|arguments| Ok((arguments, encode(&state)?)));
        let (arguments, state) = match encoded {
            Ok(encoded) => encoded,
            Err(err) => return unsendable(&err),
        };
        let request = call.request(pb::InvokeRequest {
            context: Some(call.context()),
            resource_type_id: resource_type,
            identity: identity.clone(),
            action_id: action,
            arguments: Some(arguments),
            sensitive: encode_sensitive(&sensitive),
            state: Some(state),
        });
        let mut client = self.client.clone();
        match call.run(client.invoke(request)).await {
            Outcome::Succeeded(success) => Outcome::Succeeded(Success { identity, ..success }),
            other => other,
        }
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Failure> {
        if !self.agreed.can(pb::Capability::List) {
            let message = format!("driver `{}` cannot say what it has", self.info.id);
            return Err(Failure::new(FailureCode::Unsupported, message));
        }
        let ListRequest { page_size, page_token } = request;
        // A driver may give smaller pages than it is asked for.
        let page_size = i32::try_from(page_size).unwrap_or(i32::MAX);
        let sent = self.client.clone().list(pb::ListRequest { page_size, page_token }).await;
        let answer = sent.map_err(|status| match refusal(&status) {
            Some(code) => Failure::new(code, shown(&status)),
            None => Failure::new(FailureCode::Unavailable, self.no_answer(&status)),
        })?;
        let pb::ListResponse { resources, next_page_token } = answer.into_inner();
        let resources = resources.into_iter().map(decode_listed).collect();
        Ok(ListResponse { resources, next_page_token })
    }

    async fn read_artifact(&self, request: ReadArtifactRequest) -> Result<ArtifactContent, Failure> {
        if !self.agreed.can(pb::Capability::ReadArtifact) {
            let message = format!("driver `{}` keeps no artifacts", self.info.id);
            return Err(Failure::new(FailureCode::Unsupported, message));
        }
        let ReadArtifactRequest { organization, digest } = request;
        let request = pb::ReadArtifactRequest { organization_id: organization, digest: digest.to_string() };
        let driver = self.clone();
        let explain = move |broken| match broken {
            Broken::Failed(failure) => failure,
            Broken::Malformed(err) => Failure::new(FailureCode::Internal, driver.malformed(&err)),
            Broken::Status(status) => {
                let code = refusal(&status).unwrap_or(FailureCode::Unavailable);
                Failure::new(code, driver.no_answer(&status))
            }
        };
        match self.client.clone().read_artifact(request).await {
            Ok(parts) => artifact::decode(parts.into_inner(), explain).await,
            Err(status) => Err(explain(Broken::Status(status))),
        }
    }

    async fn health(&self) -> Health {
        let answer = match self.client.clone().health(pb::HealthRequest {}).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Health::Down(self.no_answer(&status)),
        };
        let pb::HealthResponse { state, message, schema_digest } = answer;
        if *schema_digest != *self.digest {
            return Health::Down(format!("driver `{}` was replaced: connect to it again", self.info.id));
        }
        match pb::health_response::State::try_from(state) {
            Ok(pb::health_response::State::Ok) => Health::Ok,
            Ok(pb::health_response::State::Degraded) => Health::Degraded(message),
            _ => Health::Down(message),
        }
    }
}
