//! The driver contract: what the provisioning engine asks of the code that makes real things.
//!
//! Owns the trait [`Driver`] with its request and answer types, the [`Registry`], the [`Redactor`] that every
//! driver uses for logs, the conformance kit ([`conformance`]) that any driver can be held against, and a scripted
//! driver for tests of the engine ([`testing`]). It mirrors `pavior.driver.v1` in Rust types, so that a driver in
//! the process and one behind gRPC look the same to the engine.
//!
//! It must never: do I/O of its own, know a service, or offer a way to serialise a secret.
//!
//! The rules every driver keeps (the kit checks them):
//! * the same idempotency key with the same inputs gives the same result and one effect; with other inputs it is
//!   refused as [`FailureCode::InvalidArgument`];
//! * a fence lower than the last one seen for a resource is refused as [`FailureCode::Fenced`];
//! * destroying what is absent succeeds; plan and validate change nothing;
//! * `observe` finds a thing by its identity or by the key that made it what it is: the answer to an unknown outcome. By
//!   the key of a call that did not end, or that another one came after, it is not found;
//! * an apply that fails leaves nothing of a new thing, and a changed one as it was; where that cannot be done, the
//!   failure says so with `partial`, and the engine destroys or applies the former inputs;
//! * secrets leave only in [`Secrets`], never in outputs, state, checkpoints, progress or logs.
//!
//! Entry points: [`Driver`], [`Registry`], [`CallContext`], [`Outcome`], [`Sink`].

mod artifact;
pub mod conformance;
mod context;
mod outcome;
mod paging;
mod push;
mod redact;
mod registry;
mod request;
mod schema;
mod secret;
mod sink;
pub mod testing;

pub use artifact::{ArtifactContent, ArtifactFormat, MAX_PIECE, ReadArtifactRequest};
pub use async_trait::async_trait;
pub use context::CallContext;
pub use outcome::{Failure, FailureCode, Found, Health, Observation, Outcome, Partial, Success};
pub use paging::Paging;
pub use push::{Push, PushRecorder, RefUpdate};
pub use redact::{MASK, RedactedLog, RedactedStream, Redactor};
pub use registry::Registry;
pub use request::{
    ApplyRequest, Dependents, DestroyRequest, FieldDiff, InvokeRequest, ListRequest, ListResponse, Listed,
    Lookup, ObserveRequest, PinRequest, PlanAction, PlanRequest, PlanResponse, Prior, ValidateRequest,
    Violation, diff,
};
pub use schema::{ActionSchema, DriverInfo, TypeSchema, Undo};
pub use secrecy::{ExposeSecret, SecretString};
pub use secret::Secrets;
pub use sink::{LogStream, MemorySink, NullSink, Progress, Sink, SinkClosed};

/// What the engine asks of a driver. Implementations are shared by all workers of a process.
///
/// Cancellation: every call watches [`CallContext::cancel`]. A driver that is cancelled stops gracefully and answers
/// [`FailureCode::Cancelled`] when it knows that what it began is undone or recorded, else [`Outcome::Unknown`].
#[async_trait]
pub trait Driver: Send + Sync {
    /// The driver's id, version and resource types. Constant for the life of the value.
    fn info(&self) -> DriverInfo;

    /// Checks inputs and returns them normalised, with defaults. Pure. Values that are not known yet
    /// (`{"$unknown": …}`) and secret references (`{"$secret": …}`) are accepted in any place.
    async fn validate(&self, request: ValidateRequest) -> Result<serde_json::Value, Vec<Violation>>;

    /// Says what `apply` would do. Pure: reads nothing but the request.
    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure>;

    /// Says what a plan has to hold fast, so that exactly that is carried out later: a map that is laid over the inputs
    /// of the apply, or the arguments of the action. Changes nothing. A driver whose inputs say it all keeps this
    /// default.
    async fn pin(&self, _request: PinRequest) -> Result<serde_json::Value, Failure> {
        Ok(serde_json::json!({}))
    }

    /// Creates (no prior) or updates (prior given) one resource.
    async fn apply(&self, context: &CallContext, request: ApplyRequest, sink: &dyn Sink) -> Outcome;

    /// Reads one resource as it is. Changes nothing and needs no fence.
    async fn observe(&self, context: &CallContext, request: ObserveRequest) -> Observation;

    /// Names what needs one resource and is not the platform's to take down: while there is any, `destroy` refuses.
    /// Changes nothing. A driver whose `destroy` never refuses for the sake of others keeps this default.
    async fn dependents(
        &self,
        _context: &CallContext,
        _request: ObserveRequest,
    ) -> Result<Dependents, Failure> {
        Ok(Dependents::Ignored)
    }

    /// Removes one resource; success when it is absent already. The outcome's outputs are empty.
    async fn destroy(&self, context: &CallContext, request: DestroyRequest, sink: &dyn Sink) -> Outcome;

    /// Runs a day-2 action that the type declares. A driver without actions keeps this default.
    async fn invoke(&self, _context: &CallContext, request: InvokeRequest, _sink: &dyn Sink) -> Outcome {
        let message = format!("`{}` has no action `{}`", request.resource_type, request.action);
        Outcome::failed(FailureCode::Unsupported, message)
    }

    /// Names what the driver has, in order of identity, a page at a time: what nobody declares any more is found by
    /// it. A driver that cannot say keeps this default.
    async fn list(&self, _request: ListRequest) -> Result<ListResponse, Failure> {
        Err(Failure::new(FailureCode::Unsupported, "the driver cannot say what it has"))
    }

    /// Told at the start of the platform, and again and again after that: the identities of this driver's resources
    /// that the platform declares. A driver whose things do not keep themselves running starts those that should run
    /// and do not; what is not declared it must not start, and it destroys nothing. Calls for single resources go on
    /// beside this one, and what they did last counts.
    async fn reconcile(&self, _declared: &std::collections::BTreeSet<String>) {}

    /// Told now and then: the SHA-256 digests of all artifacts that something declared or a kept run refers to. A driver
    /// that keeps artifacts forgets the others once they are old; a young one may be of a run that is not recorded yet.
    async fn keep_artifacts(&self, _kept: &std::collections::BTreeSet<String>) {}

    /// Opens an artifact that a run left with this driver. A driver that keeps none keeps this default.
    async fn read_artifact(&self, _request: ReadArtifactRequest) -> Result<ArtifactContent, Failure> {
        Err(Failure::new(FailureCode::Unsupported, "the driver keeps no artifacts"))
    }

    /// Whether the driver could do its work now.
    async fn health(&self) -> Health;
}
