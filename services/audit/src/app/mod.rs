//! What the service does, a file for each use.

pub(crate) mod checkpoint;
pub(crate) mod checkpoint_publisher;
pub(crate) mod checkpoint_replica;
pub(crate) mod held_log;
pub(crate) mod inspection;
pub(crate) mod producer;
pub(crate) mod proof;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod record_checker;
pub(crate) mod record_writer;
pub(crate) mod signer;
pub(crate) mod tile;
pub(crate) mod watch;
