//! What is read back of a record.

/// A record as it is stored in its log.
#[derive(Debug, Clone)]
pub(crate) struct StoredRecord {
    pub(crate) index: i64,
    pub(crate) leaf: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) receive_time: i64,
}
