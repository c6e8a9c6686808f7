//! The state of a log: its tree head, and how often a loss of records was accepted before it.

use super::hash::Hash;

/// The size of a log and the tree hash over its records. Whatever the log becomes, it begins with this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TreeHead {
    pub(crate) size: u64,
    pub(crate) root: Hash,
}

/// A tree head within a generation of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogState {
    pub(crate) head: TreeHead,
    /// Grows whenever an operator accepts a loss of records: the log then goes on from the state that was accepted,
    /// and states of earlier generations say nothing about it any more.
    pub(crate) generation: u64,
}
