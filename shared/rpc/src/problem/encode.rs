//! Violations as error details.

use pavior_proto::google::rpc;

use super::{FieldViolation, Precondition, QuotaViolation, clip};

pub(super) fn encode_violation(violation: &FieldViolation) -> rpc::bad_request::FieldViolation {
    rpc::bad_request::FieldViolation {
        field: clip(&violation.field).into_owned(),
        description: clip(&violation.description).into_owned(),
        reason: violation.reason.clone(),
        ..Default::default()
    }
}

pub(super) fn encode_precondition(precondition: &Precondition) -> rpc::precondition_failure::Violation {
    rpc::precondition_failure::Violation {
        r#type: precondition.r#type.clone(),
        subject: clip(&precondition.subject).into_owned(),
        description: clip(&precondition.description).into_owned(),
    }
}

pub(super) fn encode_quota(quota: &QuotaViolation) -> rpc::quota_failure::Violation {
    rpc::quota_failure::Violation {
        subject: clip(&quota.subject).into_owned(),
        description: clip(&quota.description).into_owned(),
        ..Default::default()
    }
}
