//! The catalog as its callers see it: the real service behind its server stack, on both databases.

mod directory;
mod organizations;
mod support;
