use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use pavior_core::digest::Digest;
use serde_json::Value;

use crate::Secrets;

/// How an effectful call ended. A call that ends without one means [`Outcome::Unknown`].
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The resource is as asked.
    Succeeded(Success),
    /// It is known that it did not work; `partial` says what is left standing.
    Failed(Failure),
    /// It is not known whether the effect happened: ask [`crate::Driver::observe`] by key.
    Unknown {
        /// Why the outcome is not known.
        message: String,
    },
}

/// The result of a call that worked.
#[derive(Debug, Clone, Default)]
pub struct Success {
    /// The driver's name of the thing, unique within the driver and never reused.
    pub identity: String,
    /// Plain outputs, as the type's output schema says.
    pub outputs: Value,
    /// Secret outputs, apart from the plain ones.
    pub secrets: Secrets,
    /// Private state for the next call; opaque to the engine, holds no secret.
    pub state: Value,
}

/// Why a call did not work.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {message}", code = code.as_str())]
pub struct Failure {
    /// Whether the same call may work later.
    pub retryable: bool,
    /// What kind of failure.
    pub code: FailureCode,
    /// For people: lower case, user input in backticks, no secret.
    pub message: String,
    /// What stands although the call failed.
    pub partial: Option<Box<Partial>>,
    /// What a program can read of it, by name; no secret.
    pub details: BTreeMap<String, String>,
    /// How long to wait before the next try, when the driver knows.
    pub retry_delay: Option<Duration>,
}

/// What is left of a call that failed half way.
#[derive(Debug, Clone, Default)]
pub struct Partial {
    /// Identity, when one exists already.
    pub identity: Option<String>,
    /// State as far as it is known.
    pub state: Value,
}

/// Kinds of failure; the wire form is the name in capitals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureCode {
    /// Inputs are wrong, or the key was used with other inputs.
    InvalidArgument,
    /// A later claim has been seen: the caller is a zombie.
    Fenced,
    /// Another resource stands in the way.
    Conflict,
    /// The thing to act on does not exist.
    NotFound,
    /// The type, the action or the change is not supported.
    Unsupported,
    /// Something the driver needs is not there now.
    Unavailable,
    /// The work took longer than allowed.
    Timeout,
    /// The engine asked to stop, and it stopped.
    Cancelled,
    /// The user's own code failed (a pipeline step, a health check).
    WorkFailed,
    /// Anything else; the message names no internals.
    Internal,
    /// What was planned with is no longer what it was; the details have the digests, `expected` and `found`.
    Changed,
}

impl FailureCode {
    /// The wire form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::Fenced => "FENCED",
            Self::Conflict => "CONFLICT",
            Self::NotFound => "NOT_FOUND",
            Self::Unsupported => "UNSUPPORTED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Timeout => "TIMEOUT",
            Self::Cancelled => "CANCELLED",
            Self::WorkFailed => "WORK_FAILED",
            Self::Internal => "INTERNAL",
            Self::Changed => "CHANGED",
        }
    }

    /// Whether a failure of this kind may pass by itself.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Internal)
    }
}

impl Failure {
    /// A failure with the code's own idea of whether to retry.
    #[must_use]
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            retryable: code.retryable(),
            code,
            message: message.into(),
            partial: None,
            details: BTreeMap::new(),
            retry_delay: None,
        }
    }

    /// `what` is not the one that was planned with.
    #[must_use]
    pub fn changed(what: &str, expected: &dyn Display, found: &Digest) -> Self {
        let message =
            format!("{what} has changed since it was planned: expected `{expected}`, found `{found}`");
        let details = [("expected", expected.to_string()), ("found", found.to_string())];
        let details = details.map(|(name, digest)| (name.to_owned(), digest)).into();
        Self { details, ..Self::new(FailureCode::Changed, message) }
    }

    /// The same failure with the time after which a try may work.
    #[must_use]
    pub fn with_retry_delay(mut self, delay: Duration) -> Self {
        self.retry_delay = Some(delay);
        self
    }

    /// The same failure with what is left standing.
    #[must_use]
    pub fn with_partial(mut self, partial: Partial) -> Self {
        self.partial = Some(Box::new(partial));
        self
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Result<Success, Failure>> for Outcome {
    fn from(result: Result<Success, Failure>) -> Self {
        match result {
            Ok(success) => Self::Succeeded(success),
            Err(failure) => Self::Failed(failure),
        }
    }
}

impl Outcome {
    /// A failure without remains.
    #[must_use]
    pub fn failed(code: FailureCode, message: impl Into<String>) -> Self {
        Self::Failed(Failure::new(code, message))
    }

    /// The success, if it is one.
    #[must_use]
    pub fn success(&self) -> Option<&Success> {
        match self {
            Self::Succeeded(success) => Some(success),
            Self::Failed(_) | Self::Unknown { .. } => None,
        }
    }

    /// The failure, if it is one.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Succeeded(_) | Self::Unknown { .. } => None,
        }
    }
}

/// What `observe` saw.
#[derive(Debug, Clone)]
pub enum Observation {
    /// It exists and works as recorded.
    Found(Found),
    /// It does not exist.
    Absent,
    /// Parts of it exist: an apply broke off, or somebody removed something.
    Partial {
        /// Identity, when one exists already.
        identity: Option<String>,
        /// State as far as it is known.
        state: Value,
        /// What is missing or broken.
        message: String,
    },
    /// The driver cannot tell now; ask again.
    Indeterminate {
        /// Why.
        message: String,
    },
}

/// A resource that exists.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Identity as in [`Success::identity`].
    pub identity: String,
    /// Live outputs.
    pub outputs: Value,
    /// Secret outputs, so that an unknown outcome resolves into the same result as a success.
    pub secrets: Secrets,
    /// Private state.
    pub state: Value,
    /// The declaration digest of the last apply that ended well, as in [`crate::Listed`]; empty when the driver does
    /// not keep it.
    pub declaration_digest: String,
}

impl From<Found> for Success {
    fn from(Found { identity, outputs, secrets, state, declaration_digest: _ }: Found) -> Self {
        Self { identity, outputs, secrets, state }
    }
}

impl From<Success> for Found {
    fn from(Success { identity, outputs, secrets, state }: Success) -> Self {
        Self { identity, outputs, secrets, state, declaration_digest: String::new() }
    }
}

/// Whether a driver could do its work now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Yes.
    Ok,
    /// Yes, but something that it made or remembers is not as it should be, and what.
    Degraded(String),
    /// No, and why.
    Down(String),
}
