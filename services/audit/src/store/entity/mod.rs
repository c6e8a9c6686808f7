//! The tables, a file each.

// SeaORM's derive macros want `pub` items; nothing of them leaves `store/`.
#![allow(unreachable_pub)]

pub(crate) mod accepted;
pub(crate) mod checkpoint;
pub(crate) mod head;
pub(crate) mod held;
pub(crate) mod parked;
pub(crate) mod producer;
pub(crate) mod record;
pub(crate) mod tile;
