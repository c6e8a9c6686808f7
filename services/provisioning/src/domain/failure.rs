//! What a failure is called, in errors and in the audit trail alike.

use pavior_core::audit::Code;

use super::state::OperationState;

/// The code of a driver that found something else than what was planned with.
const CHANGED: &str = "CHANGED";
/// The code of a driver that did nothing, because something else stands in the way.
pub const CONFLICT: &str = "CONFLICT";

/// The code and the reason of an operation that did not succeed, from what it was blamed on: a reason, and the code of
/// the driver.
pub fn of_operation(state: OperationState, reason: &str, driver: &str) -> (Code, &'static str) {
    match (state, reason) {
        (OperationState::Stuck, _) => (Code::FailedPrecondition, "OPERATION_STUCK"),
        (_, "CANCELLED") => (Code::Cancelled, "CANCELLED"),
        (_, "NOT_APPROVED") => (Code::PermissionDenied, "NOT_APPROVED"),
        (_, "PLAN_STALE") => (Code::FailedPrecondition, "PLAN_STALE"),
        (_, "GUARDRAIL_DENIED") => (Code::FailedPrecondition, "GUARDRAIL_DENIED"),
        _ if driver == CHANGED => (Code::FailedPrecondition, "ARTIFACT_CHANGED"),
        _ => (of_driver(driver), "STEP_FAILED"),
    }
}

/// What the code of a driver says to a caller.
pub fn of_driver(code: &str) -> Code {
    match code {
        "TIMEOUT" => Code::DeadlineExceeded,
        "UNAVAILABLE" => Code::Unavailable,
        "CANCELLED" => Code::Cancelled,
        "INTERNAL" | "UNKNOWN" => Code::Unknown,
        _ => Code::FailedPrecondition,
    }
}
