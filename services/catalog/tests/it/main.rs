//! The catalog as its callers see it: the real service behind its server stack, on both databases.

mod definitions;
mod directory;
mod entities;
mod import;
mod isolation;
mod mutations;
mod organizations;
mod support;
mod templates;
