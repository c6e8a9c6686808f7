//! # pavior-files
//!
//! Owns what the platform's own files need: that they are whole or not there, that nobody but their owner reads them,
//! and that two processes never work on the same ones.
//!
//! It must never know what stands in a file, or follow a name that came from outside.
//!
//! Entry points: [`private_directory`] and [`own_directory`], [`write()`], [`write_json`], [`read_json`], [`remove`],
//! [`Lock`].

mod lock;
mod private;
mod whole;

pub use lock::{Lock, LockError};
pub use private::{
    TooOpen, own_directory, private_directory, publish, temporary_directory, temporary_directory_in, too_open,
};
pub use whole::{
    create_private, read_json, read_only, remove, remove_tree, sweep, sync_directory, write, write_json,
};
