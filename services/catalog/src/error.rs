//! Everything that can go wrong in the catalog.

use pavior_store::idempotency::IdempotencyError;
use pavior_store::{Retryable, StoreError};

use crate::domain::{Violation, Violations};
use crate::store::ListError;

/// An error of the catalog. `api/status.rs` says what each is on the wire.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Fields of the request are malformed.
    #[error("the request is not valid")]
    Invalid(Vec<Violation>),
    /// A document in the request is malformed.
    #[error("the document is not valid")]
    Document(Vec<Violation>),
    /// A filter or an order that cannot be used.
    #[error("{field}: {message}")]
    Filter { field: &'static str, message: String },
    /// A page token that was made for another order.
    #[error("page token is not valid for this request; repeat the call with the arguments of the first page")]
    PageToken,
    #[error("{kind} `{name}` does not exist")]
    NotFound { kind: &'static str, name: String },
    #[error("{kind} `{name}` already exists")]
    AlreadyExists { kind: &'static str, name: String },
    #[error("the resource has changed since it was read")]
    EtagMismatch { current: String },
    /// The permit is for another organization than the one that is named.
    #[error("the call is not confined to what it names")]
    Denied { resource: String },
    /// Others need it; some of them by name.
    #[error("`{name}` is needed by others")]
    HasDependents { name: String, dependents: Vec<String>, more: bool },
    #[error("version `{name}` was published with another content and cannot change")]
    VersionImmutable { name: String, digest: String },
    #[error("resource definition `{other}` would match as well: {context}")]
    Ambiguous { other: String, context: String },
    /// Resources that the request refers to do not exist: field and name.
    #[error("the request refers to what does not exist")]
    ReferenceNotFound(Vec<(String, String)>),
    /// Every organization has it and needs it.
    #[error("`{name}` is built in and cannot be changed or deleted")]
    BuiltIn { name: String },
    #[error("request id was used before with different content")]
    RequestIdReused,
    /// What the wire side said to itself.
    #[error("{0}")]
    Rejected(Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// One malformed field.
    pub(crate) fn field(path: &str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation { path: path.to_owned(), message: message.into() }])
    }

    /// Malformed fields of the message at `prefix`.
    pub(crate) fn under(prefix: &str, violations: Violations) -> Self {
        let mut all = Violations::new();
        all.extend_under(prefix, violations);
        Self::Invalid(all.into_vec())
    }
}

impl Retryable for Error {
    fn is_retryable(&self) -> bool {
        matches!(self, Error::Store(error) if error.is_retryable())
    }
}

impl From<ListError> for Error {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Filter(error) => Error::Filter { field: "filter", message: error.to_string() },
            ListError::Order(message) => Error::Filter { field: "order_by", message },
            ListError::Position(_) => Error::PageToken,
            ListError::Store(error) => Error::Store(error),
        }
    }
}

impl From<IdempotencyError> for Error {
    fn from(error: IdempotencyError) -> Self {
        match error {
            IdempotencyError::Reused => Error::RequestIdReused,
            IdempotencyError::Store(error) => Error::Store(error),
        }
    }
}
