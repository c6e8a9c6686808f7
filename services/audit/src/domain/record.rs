//! What is read back from a log.

use super::hash::Hash;

/// A record as it stands in its log.
#[derive(Debug, Clone)]
pub(crate) struct StoredRecord {
    pub(crate) index: i64,
    pub(crate) leaf: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) receive_time: i64,
}

/// A signature over the state of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) note: String,
    pub(crate) verifier_key: String,
    /// When the last record of it was taken; microseconds since 1970.
    pub(crate) sign_time: i64,
}

/// The newest signed state of a log.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    pub(crate) size: u64,
    pub(crate) root: Hash,
    pub(crate) signed: Signed,
}
