//! The words of the audit trail: each is the name of an enum's value in the protos, without the enum's prefix.

use serde::{Deserialize, Serialize};

/// An enum with one word for each value, the same in outboxes, records and tokens.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$value_about:meta])* $value:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$value_about])* #[serde(rename = $word)] $value),+
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word),+ }
            }

            /// The value of a word.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }
        }
    };
}

words! {
    /// What becomes of an act whose record cannot be kept.
    AuditClass {
        /// It fails: changes, approvals, elevation, secret reads, policy changes.
        Required = "REQUIRED",
        /// It goes on, and the records that are dropped are counted.
        BestEffort = "BEST_EFFORT",
        /// One record stands for many acts, which come at a high rate.
        Aggregated = "AGGREGATED",
    }
}

words! {
    /// Whether an event announces an act or tells its end.
    Phase {
        /// Durable before an external effect.
        Intent = "INTENT",
        /// The end of the act.
        Outcome = "OUTCOME",
    }
}

words! {
    /// What kind of principal acted. Wider than [`crate::PrincipalKind`]: not all of them have a credential.
    PrincipalKind {
        /// A person.
        User = "USER",
        /// A service of the platform.
        Service = "SERVICE",
        /// A machine identity of an organization.
        ServiceAccount = "SERVICE_ACCOUNT",
        /// An automated agent.
        Agent = "AGENT",
        /// Somebody without a valid credential.
        Anonymous = "ANONYMOUS",
        /// Somebody at the machine of the installation.
        Operator = "OPERATOR",
    }
}

impl From<crate::PrincipalKind> for PrincipalKind {
    fn from(kind: crate::PrincipalKind) -> Self {
        match kind {
            crate::PrincipalKind::User => Self::User,
            crate::PrincipalKind::Service => Self::Service,
            crate::PrincipalKind::ServiceAccount => Self::ServiceAccount,
            crate::PrincipalKind::Agent => Self::Agent,
        }
    }
}

words! {
    /// What a decision says. Without one the answer is no.
    #[derive(Default)]
    Effect {
        /// Yes.
        Allow = "ALLOW",
        /// Yes, once people approve.
        RequireApproval = "REQUIRE_APPROVAL",
        /// No.
        #[default]
        Deny = "DENY",
    }
}

words! {
    /// What became of an act.
    Status {
        /// It was done.
        Succeeded = "SUCCEEDED",
        /// It was not allowed.
        Denied = "DENIED",
        /// It was tried, and failed.
        Failed = "FAILED",
        /// It will be done.
        Accepted = "ACCEPTED",
        /// Only a plan of it was made.
        Planned = "PLANNED",
    }
}

words! {
    /// The codes of `google.rpc.Code`.
    Code {
        /// No error.
        Ok = "OK",
        /// The caller gave up.
        Cancelled = "CANCELLED",
        /// Something else went wrong.
        Unknown = "UNKNOWN",
        /// The request makes no sense.
        InvalidArgument = "INVALID_ARGUMENT",
        /// It took too long.
        DeadlineExceeded = "DEADLINE_EXCEEDED",
        /// It does not exist.
        NotFound = "NOT_FOUND",
        /// It exists.
        AlreadyExists = "ALREADY_EXISTS",
        /// Not allowed.
        PermissionDenied = "PERMISSION_DENIED",
        /// No valid credential.
        Unauthenticated = "UNAUTHENTICATED",
        /// A limit was reached.
        ResourceExhausted = "RESOURCE_EXHAUSTED",
        /// Not in this state.
        FailedPrecondition = "FAILED_PRECONDITION",
        /// Something else was at work on it.
        Aborted = "ABORTED",
        /// Behind the end.
        OutOfRange = "OUT_OF_RANGE",
        /// Not built.
        Unimplemented = "UNIMPLEMENTED",
        /// A bug.
        Internal = "INTERNAL",
        /// Not now.
        Unavailable = "UNAVAILABLE",
        /// Something is lost.
        DataLoss = "DATA_LOSS",
    }
}
