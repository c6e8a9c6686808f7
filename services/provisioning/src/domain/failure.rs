//! Failures of steps and of operations, and what they are called in errors and in the audit trail alike.

use std::collections::BTreeMap;

use pavior_core::audit::Code;

use super::form::form;
use super::state::named;

named! {
    /// What kind of failure it is: a driver's word, or the engine's.
    FailureCode {
        /// There is nothing to say.
        None = "",
        /// Inputs are wrong, or the key was used with other inputs.
        InvalidArgument = "INVALID_ARGUMENT",
        /// The driver has seen a later claim.
        Fenced = "FENCED",
        /// Something else stands in the way: the driver did nothing.
        Conflict = "CONFLICT",
        /// What the driver was to act on does not exist.
        NotFound = "NOT_FOUND",
        /// The driver cannot do that.
        Unsupported = "UNSUPPORTED",
        /// Something that the driver needs, or the driver itself, is away.
        Unavailable = "UNAVAILABLE",
        /// It took longer than it may.
        Timeout = "TIMEOUT",
        /// It was told to stop.
        Cancelled = "CANCELLED",
        /// The user's own code failed.
        WorkFailed = "WORK_FAILED",
        /// Anything else.
        Internal = "INTERNAL",
        /// What was planned with is not what it was.
        Changed = "CHANGED",
        /// The outcome of a call is not known.
        Unknown = "UNKNOWN",
        /// A worker did not report back before its lease ended.
        LeaseEnded = "LEASE_ENDED",
        /// The database was set back to an older copy.
        Restored = "RESTORED",
        /// People did not approve.
        NotApproved = "NOT_APPROVED",
        /// The plan is not valid any more.
        PlanStale = "PLAN_STALE",
        /// Policy does not allow it any more.
        GuardrailDenied = "GUARDRAIL_DENIED",
    }
}

impl FailureCode {
    /// What it says to a caller.
    pub fn status(self) -> Code {
        match self {
            Self::Timeout => Code::DeadlineExceeded,
            Self::Unavailable => Code::Unavailable,
            Self::Cancelled => Code::Cancelled,
            Self::Internal | Self::Unknown => Code::Unknown,
            _ => Code::FailedPrecondition,
        }
    }
}

impl From<pavior_driver::FailureCode> for FailureCode {
    fn from(code: pavior_driver::FailureCode) -> Self {
        use pavior_driver::FailureCode as Driver;
        match code {
            Driver::InvalidArgument => Self::InvalidArgument,
            Driver::Fenced => Self::Fenced,
            Driver::Conflict => Self::Conflict,
            Driver::NotFound => Self::NotFound,
            Driver::Unsupported => Self::Unsupported,
            Driver::Unavailable => Self::Unavailable,
            Driver::Timeout => Self::Timeout,
            Driver::Cancelled => Self::Cancelled,
            Driver::WorkFailed => Self::WorkFailed,
            Driver::Internal => Self::Internal,
            Driver::Changed => Self::Changed,
        }
    }
}

/// Why an attempt at a step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFailure {
    /// The driver's code, or the engine's.
    pub code: FailureCode,
    /// For people, without secrets.
    pub message: String,
}

form!(StepFailure { code, message });

named! {
    /// Why an operation did not succeed, or does not go on.
    FailureReason {
        /// Somebody cancelled it.
        Cancelled = "CANCELLED",
        /// People did not approve.
        NotApproved = "NOT_APPROVED",
        /// The plan is not valid any more.
        PlanStale = "PLAN_STALE",
        /// Policy does not allow it any more.
        GuardrailDenied = "GUARDRAIL_DENIED",
        /// A step failed.
        StepFailed = "STEP_FAILED",
        /// What was planned with is not what it was.
        ArtifactChanged = "ARTIFACT_CHANGED",
        /// What is left of it waits for an operator.
        OperationStuck = "OPERATION_STUCK",
        /// It has not begun: a service that has to be asked first does not answer.
        DependencyUnavailable = "DEPENDENCY_UNAVAILABLE",
        /// The same, because that service is over an older copy of its database.
        RestoreNeeded = "RESTORE_NEEDED",
        /// It has not begun: another operation is in its way.
        ResourceBusy = "RESOURCE_BUSY",
        /// It has not begun: it cannot be asked about, and that does not pass by itself.
        Internal = "INTERNAL",
    }
}

/// Why an operation did not succeed, or does not go on: the first failure is the one to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub reason: FailureReason,
    /// The step that failed; empty where none did.
    pub step: String,
    /// The code of the step's failure.
    pub code: FailureCode,
    /// For people, without secrets.
    pub message: String,
    /// What a program can read of it, by name.
    pub details: BTreeMap<String, String>,
    /// What it said before something else held its operation up; empty where nothing does.
    pub before: String,
}

form!(Failure { reason, step, code, message; omit details, before });

impl Failure {
    /// Of an operation that did not succeed, and of which nothing more is known.
    pub const UNTOLD: Self = Self {
        reason: FailureReason::StepFailed,
        step: String::new(),
        code: FailureCode::None,
        message: String::new(),
        details: BTreeMap::new(),
        before: String::new(),
    };

    /// One that no step is to blame for.
    pub fn new(reason: FailureReason, code: FailureCode, message: impl Into<String>) -> Self {
        Self { reason, code, message: message.into(), ..Self::UNTOLD }
    }

    /// The refusal of an operation that has not begun.
    pub fn refusal(reason: FailureReason, message: impl Into<String>) -> Self {
        let code = match reason {
            FailureReason::NotApproved => FailureCode::NotApproved,
            FailureReason::PlanStale => FailureCode::PlanStale,
            FailureReason::GuardrailDenied => FailureCode::GuardrailDenied,
            _ => FailureCode::None,
        };
        Self::new(reason, code, message)
    }

    /// The same while something else keeps the operation from going on: what is to blame stays, and what it said is kept
    /// for when it goes on.
    #[must_use]
    pub fn held_up(mut self, by: &str) -> Self {
        // What another restore has said is said once.
        if self.before.is_empty() && self.code != FailureCode::Restored {
            self.before = std::mem::take(&mut self.message);
        }
        let before = &self.before;
        self.message = if before.is_empty() { by.to_owned() } else { format!("{by}; before that: {before}") };
        self
    }

    /// Nothing keeps the operation from going on any more.
    pub fn go_on(&mut self) {
        if !self.before.is_empty() {
            self.message = std::mem::take(&mut self.before);
        }
    }

    /// The code and the reason that callers and the audit trail are told, whether or not the operation is stuck.
    pub fn told(&self, stuck: bool) -> (Code, FailureReason) {
        use FailureReason as R;
        match (stuck, self.reason) {
            (true, _) => (Code::FailedPrecondition, R::OperationStuck),
            (_, R::Cancelled) => (Code::Cancelled, R::Cancelled),
            (_, R::NotApproved) => (Code::PermissionDenied, R::NotApproved),
            (_, reason @ (R::PlanStale | R::GuardrailDenied)) => (Code::FailedPrecondition, reason),
            (_, reason @ (R::DependencyUnavailable | R::RestoreNeeded)) => (Code::Unavailable, reason),
            (_, R::ResourceBusy) => (Code::Aborted, R::ResourceBusy),
            (_, R::Internal) => (Code::Internal, R::Internal),
            _ if self.code == FailureCode::Changed => (Code::FailedPrecondition, R::ArtifactChanged),
            _ => (self.code.status(), R::StepFailed),
        }
    }
}
