//! What goes wrong in the catalog alone, beside what goes wrong with any resource.

use pavior_store::{Retryable, StoreError};

use crate::domain::Violation;

/// An error of the catalog. `api/status.rs` says what each is on the wire.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Of any resource.
    #[error(transparent)]
    Resource(#[from] pavior_resource::Error),
    /// A document in the request is malformed.
    #[error("the document is not valid")]
    Document(Vec<Violation>),
    #[error("version `{name}` was published with another content and cannot change")]
    VersionImmutable { name: String, digest: String },
    #[error("resource definition `{other}` would match as well: {context}")]
    Ambiguous { other: String, context: String },
    /// Every organization has it and needs it.
    #[error("`{name}` is built in and cannot be changed or deleted")]
    BuiltIn { name: String },
}

impl Retryable for Error {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Resource(error) if error.is_retryable())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Resource(error.into())
    }
}
