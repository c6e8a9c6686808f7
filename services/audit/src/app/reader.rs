//! What reads of logs share.

use std::sync::Arc;

use super::record_checker::Rechecks;
use crate::domain::checkpoint::CheckpointSigner;
use crate::store::AuditStore;

/// Reads logs.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) store: AuditStore,
    pub(crate) signer: Arc<dyn CheckpointSigner>,
    pub(crate) max_page_bytes: usize,
    pub(crate) rechecks: Rechecks,
}
