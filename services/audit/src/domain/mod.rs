//! The log as mathematics: records as bytes, hashes, the tree, proofs and the text of a checkpoint. No I/O and no clock;
//! only the salts of records are random.

pub(crate) mod batch;
pub(crate) mod checkpoint;
pub(crate) mod codec;
pub(crate) mod hash;
pub(crate) mod log_finding;
pub(crate) mod log_state;
pub(crate) mod note;
pub(crate) mod observed_logs;
pub(crate) mod proof;
pub(crate) mod record;
pub(crate) mod tree;
pub(crate) mod undone;

#[cfg(test)]
mod tests;
