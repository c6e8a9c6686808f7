//! The way back: what a client reads out of a status.

use std::collections::HashMap;
use std::time::Duration;

use pavior_proto::google::rpc;
use pavior_proto::pavior::audit::internal::v1::RefusalReason;
use prost::{Message, Name};
use tonic::{Code, Status};

use super::{
    DOMAIN, ErrorReason, FieldViolation, INTERNAL_DOMAIN, Precondition, QuotaViolation, Resource,
    reason_name, refusal_name,
};

/// A status as a client sees it, with its details unpacked.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The status code.
    pub code: Code,
    /// The text for people.
    pub message: String,
    /// `ErrorInfo.reason`; empty when the server sent no `ErrorInfo`.
    pub reason: String,
    /// `ErrorInfo.domain`.
    pub domain: String,
    /// `ErrorInfo.metadata`.
    pub metadata: HashMap<String, String>,
    /// `BadRequest`.
    pub violations: Vec<FieldViolation>,
    /// `PreconditionFailure`.
    pub preconditions: Vec<Precondition>,
    /// `ResourceInfo`.
    pub resource: Option<Resource>,
    /// `RetryInfo`.
    pub retry_after: Option<Duration>,
    /// `QuotaFailure`.
    pub quota: Vec<QuotaViolation>,
    /// `RequestInfo.request_id`.
    pub reference: Option<String>,
}

impl Decoded {
    /// True when the reason is this one of our own.
    pub fn is(&self, reason: ErrorReason) -> bool {
        self.domain == DOMAIN && self.reason == reason_name(reason)
    }

    /// True when the same call may be answered later without anybody's doing: what a client may try again (AIP-194).
    /// That a database was set back is UNAVAILABLE too, and lasts until an operator has acted.
    pub fn is_passing(&self) -> bool {
        self.code == Code::Unavailable && !self.is(ErrorReason::RestoreNeeded)
    }

    /// True when the audit log refuses the records of a producer for this reason.
    pub fn refuses(&self, reason: RefusalReason) -> bool {
        self.domain == INTERNAL_DOMAIN && self.reason == refusal_name(reason)
    }
}

/// Unpacks a status that was received.
pub fn from_status(status: &Status) -> Decoded {
    let rpc_status = rpc::Status::decode(status.details()).unwrap_or_default();
    decode(status.code(), status.message(), &rpc_status.details)
}

/// Unpacks `Operation.error`.
pub fn from_rpc_status(status: &rpc::Status) -> Decoded {
    decode(Code::from(status.code), &status.message, &status.details)
}

fn decode(code: Code, message: &str, details: &[prost_types::Any]) -> Decoded {
    let info: rpc::ErrorInfo = find(details).unwrap_or_default();
    let bad: rpc::BadRequest = find(details).unwrap_or_default();
    let pre: rpc::PreconditionFailure = find(details).unwrap_or_default();
    let quota: rpc::QuotaFailure = find(details).unwrap_or_default();
    Decoded {
        code,
        message: message.to_owned(),
        reason: info.reason,
        domain: info.domain,
        metadata: info.metadata.into_iter().collect(),
        violations: (bad.field_violations.into_iter())
            .map(|v| FieldViolation { field: v.field, description: v.description, reason: v.reason })
            .collect(),
        preconditions: (pre.violations.into_iter())
            .map(|v| Precondition { r#type: v.r#type, subject: v.subject, description: v.description })
            .collect(),
        resource: find::<rpc::ResourceInfo>(details)
            .map(|r| Resource { r#type: r.resource_type, name: r.resource_name }),
        retry_after: find::<rpc::RetryInfo>(details)
            .and_then(|r| r.retry_delay)
            .and_then(|delay| Duration::try_from(delay).ok()),
        quota: (quota.violations.into_iter())
            .map(|v| QuotaViolation { subject: v.subject, description: v.description })
            .collect(),
        reference: find::<rpc::RequestInfo>(details).map(|r| r.request_id),
    }
}

fn find<M: Message + Name + Default>(details: &[prost_types::Any]) -> Option<M> {
    let url = M::type_url();
    details.iter().find(|any| any.type_url == url).and_then(|any| M::decode(any.value.as_slice()).ok())
}
