//! What the service does, a file for each use.

pub(crate) mod checker;
pub(crate) mod damage;
pub(crate) mod keeper;
pub(crate) mod leaf;
pub(crate) mod proofs;
pub(crate) mod reader;
pub(crate) mod second_place;
pub(crate) mod signer;
pub(crate) mod watch;
pub(crate) mod writer;
