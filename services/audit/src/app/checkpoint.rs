//! Checkpoints.

use pavior_auth::Permit;

use super::reader::Reader;
use crate::domain::checkpoint::Checkpoint;
use crate::domain::hash;
use crate::domain::log_state::TreeHead;
use crate::error::Error;

impl Reader {
    /// The newest checkpoint; that of the empty tree for a log that has not begun.
    pub(crate) async fn checkpoint(&self, permit: &Permit) -> Result<Checkpoint, Error> {
        if let Some(checkpoint) = self.store.checkpoint(permit).await? {
            return Ok(checkpoint);
        }
        let head = TreeHead { size: 0, root: hash::empty() };
        Ok(Checkpoint { head, signed: self.signer.sign(permit.organization(), &head, 0) })
    }
}
