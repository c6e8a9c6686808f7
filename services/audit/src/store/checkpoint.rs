//! Checkpoints.

use pavior_auth::Permit;
use pavior_store::StoreError;
use sea_orm::EntityTrait as _;

use super::AuditStore;
use super::entity::checkpoint;
use crate::domain::checkpoint::{Checkpoint, SignedNote};
use crate::domain::log_state::TreeHead;
use crate::error::Error;

impl AuditStore {
    /// The newest checkpoint of the permit's log, if the log has begun.
    pub(crate) async fn checkpoint(&self, permit: &Permit) -> Result<Option<Checkpoint>, Error> {
        let log = permit.organization().to_owned();
        let Some(row) = checkpoint::Entity::find_by_id(log).one(self.store.read()).await? else {
            return Ok(None);
        };
        let checkpoint::Model { log, tree_size, root_hash, note, verifier_key, sign_time } = row;
        let corrupt = || StoreError::Corrupt(format!("checkpoint of audit log `{log}`"));
        let size = u64::try_from(tree_size).map_err(|_| corrupt())?;
        let head = TreeHead { size, root: root_hash.try_into().map_err(|_| corrupt())? };
        Ok(Some(Checkpoint { head, signed: SignedNote { note, verifier_key, sign_time } }))
    }
}
