//! Everything that can go wrong in the service.

use pavior_store::filter::FilterError;
use pavior_store::{Retryable, StoreError};

/// An error of the audit service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// From the database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored of a log does not fit together. Nothing is appended to it any more.
    #[error("audit log `{log}` is not consistent: {why}")]
    Inconsistent {
        /// The log.
        log: String,
        /// What does not fit.
        why: String,
    },
    /// The log has no such record.
    #[error("audit record `{0}` does not exist")]
    NoRecord(String),
    /// The tree has no such tile.
    #[error("tile {index} of level {level} does not exist")]
    NoTile {
        /// The level.
        level: i32,
        /// The index.
        index: i64,
    },
    /// An index or a size beyond the end of the log.
    #[error("the log has {size} records, {asked} is beyond its end")]
    BeyondEnd {
        /// The field of the request that asks for it.
        field: &'static str,
        /// What was asked for.
        asked: u64,
        /// How many records there are.
        size: u64,
    },
    /// The filter names a field that there is not, or compares it with what it cannot be compared with.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A record cannot be written as canonical JSON.
    #[error("record cannot be written: {0}")]
    Encoding(#[source] serde_json::Error),
    /// No randomness for a salt.
    #[error("no randomness")]
    Randomness,
    /// The writer has stopped.
    #[error("the audit log is shutting down")]
    Stopped,
    /// The batch that the records were in could not be written. The cause is logged once.
    #[error("the audit log cannot be written")]
    NotWritten,
    /// The signing key cannot be used.
    #[error("audit signing key: {0}")]
    Key(String),
    /// The configuration makes no sense.
    #[error("audit configuration: {0}")]
    Config(String),
}

impl Retryable for Error {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }
}
