//! Checkpoints: the signed states of logs.

use super::log_state::TreeHead;
use super::tree::Edge;

/// A signature over the state of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedNote {
    pub(crate) note: String,
    pub(crate) verifier_key: String,
    /// When the last record of it was taken; microseconds since 1970.
    pub(crate) sign_time: i64,
}

/// The newest signed state of a log.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    pub(crate) head: TreeHead,
    pub(crate) signed: SignedNote,
}

/// A log whose head, tiles, last record and checkpoint agree. Whether its name and the signature of its checkpoint are
/// right is for [`CheckpointSigner::objection`].
#[derive(Debug)]
pub(crate) struct ConsistentLog {
    pub(crate) log: String,
    pub(crate) origin: String,
    pub(crate) edge: Edge,
    pub(crate) note: String,
    pub(crate) verifier_key: String,
}

/// What is wrong with the name or the checkpoint of a log.
#[derive(Debug)]
pub(crate) struct Objection {
    pub(crate) why: String,
    /// Consistent in itself, but of another name or key: when all logs are so, it is the configuration that is wrong.
    pub(crate) foreign: bool,
}

/// Signs states of logs. Called inside of the transaction that changes a log.
pub(crate) trait CheckpointSigner: std::fmt::Debug + Send + Sync {
    /// The name of a log.
    fn origin(&self, log: &str) -> String;
    /// The signed note of a log's state. `time` is that of the last record (microseconds since 1970): the note does
    /// not hold a time, so the one beside it must be found in the log to be believed.
    fn sign(&self, log: &str, head: &TreeHead, time: i64) -> SignedNote;
    /// Whether a key of this installation signed the note, which says exactly this.
    fn has_signed(&self, log: &str, head: &TreeHead, note: &str) -> bool;
    /// What is wrong with the name or the last checkpoint of a log, if anything is.
    fn objection(&self, found: &ConsistentLog) -> Option<Objection>;
}
