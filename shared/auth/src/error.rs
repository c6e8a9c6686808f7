//! What can go wrong with keys and tokens.

use pavior_rpc::problem::Problem;

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

/// A refused token. The caller learns nothing but that; the reason is for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("request had no valid credentials")]
pub struct Unauthenticated {
    reason: &'static str,
}

impl Unauthenticated {
    pub(crate) const fn new(reason: &'static str) -> Self {
        Self { reason }
    }

    /// Why, as a short stable word for logs and metrics. Never for callers.
    pub const fn reason(&self) -> &'static str {
        self.reason
    }
}

/// The reason when an issuer's keys could not be read yet: nothing is said about the token.
pub(crate) const NO_KEYS: &str = "no_keys";

impl From<Unauthenticated> for tonic::Status {
    fn from(error: Unauthenticated) -> Self {
        if error.reason == NO_KEYS {
            let message = "the keys of the token's issuer are not there yet";
            return Problem::unavailable(message).with("dependency", "issuer").into();
        }
        Problem::unauthenticated().into()
    }
}
