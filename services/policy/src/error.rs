//! Everything that can go wrong in this service.

use pavior_rpc::Problem;
use pavior_store::idempotency::IdempotencyError;
use pavior_store::{Retryable, StoreError};

use crate::domain::approval::{IllegalTransition, NotEligible};
use crate::domain::entities::InputError;

/// An error of the policy service. Becomes a status in `api/status.rs`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is malformed: an answer that is ready to be sent.
    #[error("{0}")]
    Problem(#[from] Problem),
    /// No such resource.
    #[error("{kind} `{name}` does not exist")]
    NotFound {
        /// For people, for example `role`.
        kind: &'static str,
        /// The resource name.
        name: String,
    },
    /// A resource of this name exists.
    #[error("{kind} `{name}` already exists")]
    AlreadyExists {
        /// For people, for example `role`.
        kind: &'static str,
        /// The resource name.
        name: String,
    },
    /// The etag is not the current one.
    #[error("the etag is not the current one")]
    EtagMismatch {
        /// The current one.
        current: String,
    },
    /// Something still refers to it.
    #[error("`{name}` is in use")]
    HasDependents {
        /// What was to be deleted.
        name: String,
        /// The names of some of those that refer to it.
        dependents: Vec<String>,
    },
    /// A resource that is referred to does not exist.
    #[error("`{field}` refers to `{name}`, which does not exist")]
    ReferenceNotFound {
        /// The path of the field.
        field: &'static str,
        /// The name in it.
        name: String,
    },
    /// A policy's text does not hold.
    #[error("the policy's text is not valid")]
    InvalidPolicy {
        /// One sentence for each thing that is wrong.
        problems: Vec<String>,
    },
    /// The permit is for another organization or action.
    #[error("permission `{action}` denied on `{resource}`")]
    NotPermitted {
        /// The action.
        action: String,
        /// The resource.
        resource: String,
    },
    /// Too many of a kind.
    #[error("an organization has at most {limit} {kind}")]
    Quota {
        /// For people, in the plural.
        kind: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// The voter may not vote.
    #[error(transparent)]
    NotEligible(#[from] NotEligible),
    /// The approval request's state does not allow it.
    #[error(transparent)]
    IllegalTransition(#[from] IllegalTransition),
    /// The vote is about another plan.
    #[error("the approval request is for the plan `{wanted}`, the vote for `{given}`")]
    OtherPlan {
        /// The digest of the plan that is asked about.
        wanted: String,
        /// The digest that the voter gave.
        given: String,
    },
    /// The catalog does not answer, and what is known of its directory is too old.
    #[error("the catalog does not answer")]
    DirectoryUnavailable(#[source] Box<Problem>),
    /// What a decision was asked about does not fit the schema.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The request id was used before.
    #[error("the request id was used before with different content")]
    RequestIdReused,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bug.
    #[error("{0}")]
    Bug(String),
}

impl Retryable for Error {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }
}

impl From<IdempotencyError> for Error {
    fn from(error: IdempotencyError) -> Self {
        match error {
            IdempotencyError::Reused => Self::RequestIdReused,
            IdempotencyError::Store(error) => Self::Store(error),
        }
    }
}
