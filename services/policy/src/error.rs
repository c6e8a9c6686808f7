//! The errors of this service, beside those of any resource.

use pavior_rpc::Problem;
use pavior_store::{Retryable, StoreError};

use crate::domain::approval::{IllegalTransition, NotEligible};
use crate::domain::entities::InputError;

/// An error of the policy service. Becomes a status in `api/status.rs`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of any resource.
    #[error(transparent)]
    Resource(#[from] pavior_resource::Error),
    /// The text of a policy is not valid.
    #[error("the policy's text is not valid")]
    InvalidPolicy {
        /// One sentence for each thing that is wrong.
        problems: Vec<String>,
    },
    /// The voter may not vote.
    #[error(transparent)]
    NotEligible(#[from] NotEligible),
    /// The state of the approval does not allow it.
    #[error(transparent)]
    IllegalTransition(#[from] IllegalTransition),
    /// The vote names another plan.
    #[error("the approval is for the plan `{wanted}`, the vote for `{given}`")]
    OtherPlan {
        /// The digest of the plan that the approval is bound to.
        wanted: String,
        /// The digest that the voter gave.
        given: String,
    },
    /// The catalog does not answer, and the cached directory is too old.
    #[error("the catalog does not answer")]
    DirectoryUnavailable(#[source] Box<Problem>),
    /// Who belongs to which group is told from an older copy of the catalog's database.
    #[error(
        "groups and members may be those of an older copy: {0}; changes are refused until an operator has run `pavior restore`"
    )]
    DirectoryOutdated(String),
    /// The input of a decision does not fit the schema.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A bug.
    #[error("{0}")]
    Bug(String),
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

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Resource(problem.into())
    }
}
