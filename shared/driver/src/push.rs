//! What happens to repositories besides what the engine asks for: pushes. The platform records them.

use async_trait::async_trait;

/// A reference that a push wants to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefUpdate {
    /// Such as `refs/heads/main`.
    pub name: String,
    /// The object that it points to, as the pusher believes; only zeros when it is to be made.
    pub before: String,
    /// The object that it shall point to; only zeros when it is to be deleted.
    pub after: String,
}

/// A push that is about to happen, or that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Id of the organization.
    pub organization: String,
    /// Name of the repository.
    pub repository: String,
    /// What it wants to move.
    pub updates: Vec<RefUpdate>,
    /// Why nothing of it happens.
    pub refused: Option<String>,
}

/// Keeps a record of pushes.
#[async_trait]
pub trait PushRecorder: Send + Sync {
    /// Returns when the record is durable; without it there is no push. The error is for operators.
    async fn record(&self, push: Push) -> Result<(), String>;
}
