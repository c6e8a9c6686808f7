//! What can go wrong with keys and tokens.

use pavior_rpc::problem::{ErrorReason, Problem};
use tonic::Code;

/// A key, a configuration or a token that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A key that cannot be read or made.
    #[error("key `{name}` is not usable: {reason}")]
    Key {
        /// Which key.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration that cannot work or would not be safe.
    #[error("issuer `{issuer}`: {reason}")]
    Issuer {
        /// The issuer that the configuration is for.
        issuer: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key set that cannot be fetched or read.
    #[error("key set `{source_name}` is not usable: {reason}")]
    KeySet {
        /// The file or the URL.
        source_name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("file `{path}`: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Methods that do not say who may call them, all of them.
    #[error("it is not said who may call:\n  {}", .0.join("\n  "))]
    Uncallable(Vec<String>),
    /// A token that cannot be signed or serialized.
    #[error("token cannot be made: {0}")]
    Mint(String),
}

/// A refused token. The caller learns the class and what would be right; the reason is for logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("request had no valid credentials")]
pub struct Unauthenticated {
    reason: &'static str,
    /// The audience that the token should be for; told only when its issuer has signed it.
    audience: Option<String>,
}

/// The reason when an issuer's keys could not be read yet: nothing is said about the token.
pub(crate) const NO_KEYS: &str = "no_keys";

impl Unauthenticated {
    /// The token was good once.
    pub const EXPIRED: Self = Self::new("expired");

    pub(crate) const fn new(reason: &'static str) -> Self {
        Self { reason, audience: None }
    }

    pub(crate) fn wrong_audience(right: &str) -> Self {
        Self { reason: "audience", audience: Some(right.to_owned()) }
    }

    /// Why, as a short stable word for logs and metrics. Never for callers.
    pub const fn reason(&self) -> &'static str {
        self.reason
    }

    /// The class that callers are told, as `cause` in the metadata of the error, with what would be right. An unknown
    /// issuer, an unknown key and a wrong signature are one class: which issuers are known is told to nobody. The classes
    /// below them are told only about tokens with a good signature.
    fn class(&self) -> (&'static str, String) {
        let (cause, text) = match self.reason {
            "missing" => ("NO_TOKEN", "the request has no token: send `authorization: Bearer <token>`"),
            "scheme" | "several" | "malformed" | "too_long" | "critical_extension" | "type" | "claims" => (
                "NOT_A_TOKEN",
                "the credential is not a token: send one JWT as `authorization: Bearer <token>`",
            ),
            "issuer" | "unknown_key" | "algorithm" | "signature" => (
                "NOT_TRUSTED",
                "the token is not signed with a current key of an issuer that is accepted here: get one from such an \
                 issuer",
            ),
            "expired" => ("EXPIRED", "the token has expired or has no `exp`: get a new one"),
            "not_yet_valid" => {
                ("NOT_YET_VALID", "the token is not valid yet: wait, or correct its issuer's clock")
            }
            "audience" => {
                let right = self.audience.as_deref().unwrap_or_default();
                return (
                    "WRONG_AUDIENCE",
                    format!("the token is for another audience: get one whose `aud` is `{right}`"),
                );
            }
            _ => (
                "CLAIMS_NOT_ACCEPTED",
                "the token names nobody whom its issuer may speak for: an operator compares its claims with the \
                 issuer's configuration",
            ),
        };
        (cause, text.to_owned())
    }
}

impl From<Unauthenticated> for Problem {
    fn from(error: Unauthenticated) -> Self {
        if error.reason == NO_KEYS {
            let message = "the keys of the token's issuer are not there yet";
            return Self::unavailable(message).with("dependency", "issuer");
        }
        let (cause, text) = error.class();
        let problem =
            Self::new(Code::Unauthenticated, ErrorReason::Unauthenticated, text).with("cause", cause);
        match error.audience {
            Some(audience) => problem.with("audience", audience),
            None => problem,
        }
    }
}

impl From<Unauthenticated> for tonic::Status {
    fn from(error: Unauthenticated) -> Self {
        Problem::from(error).into()
    }
}
