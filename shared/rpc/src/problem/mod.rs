//! Errors on the wire: one type with every detail that `google.rpc` knows, and the way back for clients.
//!
//! A [`Problem`] becomes a [`tonic::Status`] with exactly one `google.rpc.ErrorInfo` (AIP-193). Text of databases,
//! drivers and libraries never gets in: [`Problem::internal`] logs it under a reference and shows the reference only.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use encode::{encode_precondition, encode_quota, encode_violation};
use pavior_core::Fault;
use pavior_core::id_gen::{IdGen, SystemIds};
use pavior_proto::google::rpc;
use pavior_proto::pavior::audit::internal::v1::RefusalReason;
pub use pavior_proto::pavior::r#type::v1::ErrorReason;
use prost::{Message, Name};
use tonic::{Code, Status};

mod clip;
mod decode;
mod encode;
mod reason;
mod violations;

pub(crate) use clip::clip;
pub use decode::{Decoded, from_rpc_status, from_status};
use reason::refusal_name;
pub use reason::{reason_from_name, reason_name};
pub use violations::Violations;

/// The `domain` of every `google.rpc.ErrorInfo` that this platform makes.
pub const DOMAIN: &str = "pavior.dev";

/// The `domain` of a reason that only services of the platform give each other.
const INTERNAL_DOMAIN: &str = "internal.pavior.dev";

/// How many bytes of encoded details leave the process; many clients limit all headers to 8 KiB.
const MAX_DETAILS_BYTES: usize = 4096;

/// One malformed field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Dotted snake_case path from the request, for example `component.labels.team`.
    pub field: String,
    /// What is wrong, for people.
    pub description: String,
    /// What is wrong, for programs: a `pavior.type.v1.FieldViolationReason` without its prefix.
    pub reason: String,
}

impl FieldViolation {
    /// Of a field, with the reason why.
    pub fn new(field: impl Into<String>, fault: Fault, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into(), reason: fault.as_str().to_owned() }
    }
}

impl fmt::Display for FieldViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (field, description) = (clip(&self.field), clip(&self.description));
        match field.is_empty() {
            true => f.write_str(&description),
            false => write!(f, "`{field}`: {description}"),
        }
    }
}

/// One rule or state that forbids the call until somebody changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precondition {
    /// `POLICY`, `STATE` or `REFERENCE`.
    pub r#type: String,
    /// The resource or the policy rule.
    pub subject: String,
    /// What would be allowed.
    pub description: String,
}

/// The resource that an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The type, for example `provisioning.pavior.dev/Project`.
    pub r#type: String,
    /// The resource name.
    pub name: String,
}

/// One quota that is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaViolation {
    /// What the quota is counted for.
    pub subject: String,
    /// Which quota, and how much of it there is.
    pub description: String,
}

/// What a [`Problem`] holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Details {
    /// The status code.
    pub code: Code,
    /// The stable reason in `ErrorInfo`.
    pub reason: ErrorReason,
    /// The reason in its place, for services only, why the audit log refuses the records of a producer.
    pub refusal: Option<RefusalReason>,
    /// Lower case, no final period, user input in backticks.
    pub message: String,
    /// `ErrorInfo.metadata`: keys `[a-z][a-zA-Z0-9-_]+`.
    pub metadata: BTreeMap<String, String>,
    /// All malformed fields.
    pub violations: Vec<FieldViolation>,
    /// All failed preconditions.
    pub preconditions: Vec<Precondition>,
    /// The resource concerned.
    pub resource: Option<Resource>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// Quotas that are used up.
    pub quota: Vec<QuotaViolation>,
    /// The reference under which the log tells more.
    pub reference: Option<String>,
}

/// An error for a caller: a code, a stable reason and structured details. Boxed, so that results stay small.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem(Box<Details>);

impl Deref for Problem {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl DerefMut for Problem {
    fn deref_mut(&mut self) -> &mut Details {
        &mut self.0
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Problem {
    /// A problem without details; the constructors below fit most cases.
    pub fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            code,
            reason,
            refusal: None,
            message: message.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            preconditions: Vec::new(),
            resource: None,
            retry_after: None,
            quota: Vec::new(),
            reference: None,
        }))
    }

    /// INVALID_ARGUMENT with every malformed field.
    pub fn invalid(violations: Vec<FieldViolation>) -> Self {
        let message = match violations.as_slice() {
            [] => "the request is not valid".to_owned(),
            [one] => one.to_string(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        };
        let mut problem = Self::new(Code::InvalidArgument, ErrorReason::InvalidField, message);
        problem.violations = violations;
        problem
    }

    /// INVALID_ARGUMENT for a single field.
    pub fn invalid_field(field: impl Into<String>, fault: Fault, description: impl Into<String>) -> Self {
        Self::invalid(vec![FieldViolation::new(field, fault, description)])
    }

    /// INVALID_ARGUMENT for a single field with a reason of its own (`INVALID_FILTER`, `INVALID_PAGE_TOKEN`, …).
    pub fn invalid_reason(
        reason: ErrorReason,
        field: impl Into<String>,
        fault: Fault,
        description: impl Into<String>,
    ) -> Self {
        Self::invalid_field(field, fault, description).with_reason(reason)
    }

    /// NOT_FOUND for a resource of a type such as `provisioning.pavior.dev/Project`. Only for callers who may know
    /// whether the resource exists.
    pub fn not_found(r#type: &str, name: impl Into<String>) -> Self {
        let name = name.into();
        let message = format!("{} `{name}` does not exist", noun(r#type));
        Self::new(Code::NotFound, ErrorReason::ResourceNotFound, message).with_resource(r#type, name)
    }

    /// ALREADY_EXISTS.
    pub fn already_exists(r#type: &str, name: impl Into<String>) -> Self {
        let name = name.into();
        let message = format!("{} `{name}` already exists", noun(r#type));
        Self::new(Code::AlreadyExists, ErrorReason::ResourceAlreadyExists, message)
            .with_resource(r#type, name)
    }

    /// ABORTED because the etag is not the current one (AIP-154).
    pub fn etag_mismatch(current: impl Into<String>) -> Self {
        let message = "the resource has changed since it was read: read it again and repeat the change";
        Self::new(Code::Aborted, ErrorReason::EtagMismatch, message).with("currentEtag", current)
    }

    /// ABORTED because of something at work on the resource; to be repeated at a higher level.
    pub fn aborted(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self::new(Code::Aborted, reason, message).retry_in(Duration::from_secs(1))
    }

    /// PERMISSION_DENIED by policy, worded as AIP-211 wants: it does not tell whether the resource exists.
    pub fn permission_denied(action: &str, resource: &str) -> Self {
        let message =
            format!("permission `{action}` denied on resource `{resource}` (or it might not exist)");
        Self::new(Code::PermissionDenied, ErrorReason::AccessDenied, message).with("action", action)
    }

    /// UNAUTHENTICATED between services, with no hint why.
    pub fn unauthenticated() -> Self {
        let message = "the request has no valid credential";
        Self::new(Code::Unauthenticated, ErrorReason::Unauthenticated, message)
    }

    /// FAILED_PRECONDITION; add the rules with [`Problem::because`].
    pub fn precondition(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, reason, message)
    }

    /// FAILED_PRECONDITION, for another service: the audit log refuses its records. Repeating the call changes nothing.
    pub fn refusal(reason: RefusalReason, message: impl Into<String>) -> Self {
        let mut problem = Self::precondition(ErrorReason::InvalidState, message);
        problem.refusal = Some(reason);
        problem
    }

    /// UNAVAILABLE: something that the call needs does not answer; safe to try again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, ErrorReason::DependencyUnavailable, message)
            .retry_in(Duration::from_secs(1))
    }

    /// UNAVAILABLE until an operator has run `pavior restore`: without `RetryInfo`, as trying again is no use.
    pub fn restore_needed(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, ErrorReason::RestoreNeeded, message)
    }

    /// RESOURCE_EXHAUSTED.
    pub fn resource_exhausted(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self::new(Code::ResourceExhausted, reason, message)
    }

    /// RESOURCE_EXHAUSTED because a message is larger than `limit` bytes.
    pub fn too_large(limit: Option<usize>) -> Self {
        let problem = Self::resource_exhausted(
            ErrorReason::MessageTooLarge,
            match limit {
                Some(limit) => format!("the message is larger than {limit} bytes"),
                None => "the message is too large".to_owned(),
            },
        );
        match limit {
            Some(limit) => problem.with("limitBytes", limit.to_string()),
            None => problem,
        }
    }

    /// OUT_OF_RANGE.
    pub fn out_of_range(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self::new(Code::OutOfRange, reason, message)
    }

    /// UNIMPLEMENTED.
    pub fn unimplemented(what: &str) -> Self {
        Self::new(Code::Unimplemented, ErrorReason::Unimplemented, format!("{what} is not implemented"))
    }

    /// DEADLINE_EXCEEDED.
    pub fn deadline_exceeded() -> Self {
        let message = "the deadline passed before the answer was ready";
        Self::new(Code::DeadlineExceeded, ErrorReason::DeadlineExceeded, message)
    }

    /// INTERNAL. Logs `err` (with `{:#}`, so that `anyhow` shows its chain) once under a new reference; the caller
    /// sees the reference only.
    pub fn internal(err: impl fmt::Display) -> Self {
        let problem = Self::hidden();
        let reference = problem.reference.as_deref().unwrap_or_default();
        tracing::error!(reference, error = format!("{err:#}"), "internal error");
        problem
    }

    /// As [`Problem::internal`], and logs the whole chain of sources.
    pub fn internal_error(err: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = err.to_string();
        let mut source = err.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self::internal(text)
    }

    /// INTERNAL with a new reference and nothing logged.
    fn hidden() -> Self {
        let reference = SystemIds.uuid().simple().to_string();
        let message = format!("internal error, reference `{reference}`");
        let mut problem = Self::new(Code::Internal, ErrorReason::Internal, message);
        problem.reference = Some(reference);
        problem
    }

    /// What a service says when a peer that it needs failed (gRFC A54): the peer's codes about *its* arguments say
    /// nothing about the caller's request, so they become INTERNAL; a peer that does not answer is UNAVAILABLE. What only
    /// an operator ends stays what it is.
    pub fn from_dependency(peer: &str, status: &Status) -> Self {
        match status.code() {
            Code::Unavailable if from_status(status).is(ErrorReason::RestoreNeeded) => {
                Self::restore_needed(status.message()).with("dependency", peer)
            }
            Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::Cancelled => {
                tracing::warn!(peer, code = ?status.code(), error = status.message(), "dependency unavailable");
                Self::unavailable(format!("{peer} does not answer")).with("dependency", peer)
            }
            Code::DeadlineExceeded => Self::deadline_exceeded().with("dependency", peer),
            code => Self::internal(format!("{peer} answered {code:?}: {}", status.message())),
        }
    }

    /// Adds a pair to `ErrorInfo.metadata`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Sets another reason.
    #[must_use]
    pub fn with_reason(mut self, reason: ErrorReason) -> Self {
        self.reason = reason;
        self
    }

    /// Adds one failed precondition.
    #[must_use]
    pub fn because(
        mut self,
        r#type: &str,
        subject: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        self.preconditions.push(Precondition {
            r#type: r#type.to_owned(),
            subject: subject.into(),
            description: description.into(),
        });
        self
    }

    /// Names the resource concerned, with its full type.
    #[must_use]
    pub fn with_resource(mut self, r#type: &str, name: impl Into<String>) -> Self {
        debug_assert!(r#type.contains(".pavior.dev/"), "`{type}` is not the type of a resource");
        self.resource = Some(Resource { r#type: r#type.to_owned(), name: name.into() });
        self
    }

    /// Adds a quota that is used up.
    #[must_use]
    pub fn with_quota(mut self, subject: impl Into<String>, description: impl Into<String>) -> Self {
        self.quota.push(QuotaViolation { subject: subject.into(), description: description.into() });
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_in(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// As `google.rpc.Status`, for `Operation.error`.
    pub fn to_rpc_status(&self) -> rpc::Status {
        let message = clip(&self.message).into_owned();
        rpc::Status { code: self.code as i32, message, details: self.encode_details() }
    }

    fn encode_details(&self) -> Vec<prost_types::Any> {
        let (reason, domain) = match self.refusal {
            Some(refusal) => (refusal_name(refusal), INTERNAL_DOMAIN),
            None => (reason_name(self.reason), DOMAIN),
        };
        let mut details = vec![any(&rpc::ErrorInfo {
            reason: reason.to_owned(),
            domain: domain.to_owned(),
            metadata: self
                .metadata
                .iter()
                .map(|(key, value)| (key.clone(), clip(value).into_owned()))
                .collect(),
        })];
        if !self.violations.is_empty() {
            details.push(any(&rpc::BadRequest {
                field_violations: self.violations.iter().map(encode_violation).collect(),
            }));
        }
        if !self.preconditions.is_empty() {
            let violations = self.preconditions.iter().map(encode_precondition).collect();
            details.push(any(&rpc::PreconditionFailure { violations }));
        }
        if let Some(resource) = &self.resource {
            details.push(any(&rpc::ResourceInfo {
                resource_type: resource.r#type.clone(),
                resource_name: clip(&resource.name).into_owned(),
                ..Default::default()
            }));
        }
        if !self.quota.is_empty() {
            let violations = self.quota.iter().map(encode_quota).collect();
            details.push(any(&rpc::QuotaFailure { violations }));
        }
        if let Some(after) = self.retry_after {
            let retry_delay = prost_types::Duration::try_from(after).ok();
            details.push(any(&rpc::RetryInfo { retry_delay }));
        }
        if let Some(reference) = &self.reference {
            details.push(any(&rpc::RequestInfo { request_id: reference.clone(), ..Default::default() }));
        }
        details
    }

    /// Drops the tail of long lists until the details fit into response headers; says so in the metadata.
    fn shrink(&mut self) {
        let dropped = if self.violations.len() >= self.preconditions.len() {
            let keep = self.violations.len() / 2;
            self.violations.split_off(keep).len()
        } else {
            let keep = self.preconditions.len() / 2;
            self.preconditions.split_off(keep).len()
        };
        let before: usize = self.metadata.get("omitted").and_then(|n| n.parse().ok()).unwrap_or(0);
        self.metadata.insert("omitted".to_owned(), (before + dropped).to_string());
    }
}

impl From<Problem> for Status {
    fn from(mut problem: Problem) -> Self {
        let mut encoded = problem.to_rpc_status().encode_to_vec();
        while encoded.len() > MAX_DETAILS_BYTES && problem.violations.len() + problem.preconditions.len() > 1
        {
            problem.shrink();
            encoded = problem.to_rpc_status().encode_to_vec();
        }
        Status::with_details(problem.code, clip(&problem.message), encoded.into())
    }
}

/// What a resource of a type is called in sentences: `role binding` for `policy.pavior.dev/RoleBinding`.
pub fn noun(r#type: &str) -> String {
    let (_, kind) = r#type.rsplit_once('/').unwrap_or(("", r#type));
    let mut noun = String::with_capacity(kind.len() + 4);
    for letter in kind.chars() {
        if letter.is_ascii_uppercase() && !noun.is_empty() {
            noun.push(' ');
        }
        noun.push(letter.to_ascii_lowercase());
    }
    noun
}

/// Packs a message as `Any` with its type URL.
pub fn any<M: Message + Name>(message: &M) -> prost_types::Any {
    prost_types::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}
