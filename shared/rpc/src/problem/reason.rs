//! Reasons and their names.

use pavior_proto::pavior::audit::internal::v1::RefusalReason;

use super::ErrorReason;

/// The reason as it stands in `ErrorInfo.reason`: without the enum's prefix.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// The same of why the audit log refuses a producer.
pub(super) fn refusal_name(reason: RefusalReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("REFUSAL_REASON_").unwrap_or(name)
}

/// The reason of a name in `ErrorInfo.reason`.
pub fn reason_from_name(name: &str) -> Option<ErrorReason> {
    ErrorReason::from_str_name(&format!("ERROR_REASON_{name}"))
}
