//! The catalog as its callers see it: the real service behind its server stack, on both databases.

// What fails here fails a test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod channels;
mod definitions;
mod directory;
mod entities;
mod import;
mod isolation;
mod memberships;
mod mutations;
mod organizations;
mod registration;
mod relations;
mod repeat;
mod reserved;
mod support;
mod templates;
