//! The log as mathematics: hashes, the tree, proofs and the text of a checkpoint. Pure: no I/O, no clock.

pub(crate) mod batch;
pub(crate) mod hash;
pub(crate) mod known;
pub(crate) mod note;
pub(crate) mod proof;
pub(crate) mod record;
pub(crate) mod tree;

#[cfg(test)]
mod tests;
