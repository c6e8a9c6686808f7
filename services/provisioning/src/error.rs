//! Why provisioning refuses or fails.

use pavior_rpc::Problem;
use pavior_store::idempotency::IdempotencyError;
use pavior_store::{Retryable, StoreError};

use crate::domain::state::IllegalTransition;

/// Everything that can go wrong. The api layer turns it into a status, exhaustively.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Refused, with details for the caller.
    #[error("{0}")]
    Refused(Problem),
    /// It does not exist.
    #[error("{kind} `{name}` does not exist")]
    NotFound {
        /// What kind of thing, as its type ends: `Project`.
        kind: &'static str,
        /// Its resource name.
        name: String,
    },
    /// It exists already.
    #[error("{kind} `{name}` already exists")]
    AlreadyExists {
        /// What kind of thing, as its type ends: `Project`.
        kind: &'static str,
        /// Its resource name.
        name: String,
    },
    /// Another operation works on it.
    #[error("operation `{operation}` is working on `{name}`")]
    Busy {
        /// What it works on.
        name: String,
        /// The operation.
        operation: String,
    },
    /// What was planned with it has changed meanwhile, or is gone. Whoever plans anew finds it as it is now.
    #[error("`{name}` has changed since this was planned")]
    Stale {
        /// Its resource name.
        name: String,
    },
    /// Another operation has it, and does not go on before somebody does something.
    #[error("operation `{operation}` has `{name}` and waits for {whom}")]
    Waits {
        /// What it has.
        name: String,
        /// The operation.
        operation: String,
        /// What it waits for, for people.
        whom: String,
    },
    /// What nobody declares has its name, or is in it, and is being removed. That is an operation of the organization, which
    /// those who own the project may not see.
    #[error(
        "operation `{operation}` removes what was left behind under `{name}`{}: whoever may remove orphans can look at it",
        whom.as_ref().map(|whom| format!(", and waits for {whom}")).unwrap_or_default()
    )]
    Removes {
        /// Under which name it was left.
        name: String,
        /// The operation.
        operation: String,
        /// What it waits for, for people; nothing where it goes on by itself.
        whom: Option<String>,
    },
    /// A driver's thing is asked to be removed as an orphan, and a resource declares it.
    #[error("`{identity}` is no orphan: `{resource}` declares it")]
    Declared {
        /// What the driver calls it.
        identity: String,
        /// The resource, by name.
        resource: String,
    },
    /// What goes wrong with resources of any service.
    #[error(transparent)]
    Resource(#[from] pavior_resource::Error),
    /// A deletion has begun: what is deleted is gone, so that there is no way back.
    #[error("operation `{operation}` deletes and has begun: it cannot be undone and goes on")]
    Begun {
        /// Its resource name.
        operation: String,
    },
    /// An operation waits for an operator: there is nothing to stop, and what is left of it is not undone.
    #[error("operation `{operation}` is stuck: take it up with RetryOperation (`pavior op retry`)")]
    Stuck {
        /// Its resource name.
        operation: String,
    },
    /// A plan is carried out once.
    #[error("the plan has been carried out already: plan anew")]
    CarriedOut {
        /// The operation that did, by resource name.
        operation: String,
    },
    /// Somebody keeps too many plans.
    #[error("you have {limit} plans already that can still be carried out")]
    TooManyPlans {
        /// The most that there may be.
        limit: u64,
    },
    /// The claim on a step is lost to another worker.
    #[error("the claim on step `{step}` is lost")]
    Fenced {
        /// The step.
        step: String,
    },
    /// An event that the state does not allow.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// A stored row cannot be read.
    #[error("stored data is corrupt: {0}")]
    Corrupt(String),
    /// A secret cannot be sealed or opened.
    #[error("a secret cannot be {0}")]
    Seal(&'static str),
    /// A test told the worker to die here.
    #[error("the worker was told to die at `{0}`")]
    Died(&'static str),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Something cannot be worked on now: because of an operation, or, where none has it any more, because it is not what it
    /// was a moment ago.
    pub(crate) fn taken(name: String, operation: String) -> Self {
        if operation.is_empty() { Self::Stale { name } } else { Self::Busy { name, operation } }
    }
}

impl Retryable for Error {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Resource(error) => error.is_retryable(),
            _ => false,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<pavior_resource::ListError> for Error {
    fn from(error: pavior_resource::ListError) -> Self {
        Self::Resource(error.into())
    }
}

impl From<IdempotencyError> for Error {
    fn from(error: IdempotencyError) -> Self {
        Self::Resource(error.into())
    }
}
